"""Models behind one protocol (``base.TextGenerationEngine``), however they are loaded."""
