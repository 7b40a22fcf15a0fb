"""``bloomery bench``: an endpoint's latency, throughput and goodput under a load that is stated exactly."""
