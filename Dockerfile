# bloomery's image; docs/docker.md says how it is built and run. Made for x86_64; nothing in it is bound to that, but no
# other processor has been tried. No "# syntax" line: it would be fetched from a registry.
ARG BASE_IMAGE=python:3.11-slim-bookworm
ARG BUILD_IMAGE=python:3.11-bookworm

FROM ${BUILD_IMAGE} AS lists
ARG TORCH=""
COPY requirements.txt docker/heavy.txt docker/split /lists/
RUN sh /lists/split /lists/out

FROM ${BUILD_IMAGE} AS heavy
ARG VARIANT=cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python3 -m venv /opt/venv
COPY docker/install /build/
COPY --from=lists /lists/out/heavy.txt /build/
RUN --mount=type=bind,source=docker/wheels/heavy,target=/mnt sh /build/install /build/heavy.txt /mnt

# What would be compiled at the first start, had a running container a compiler and a place to keep it.
FROM heavy AS operators
COPY container/bloomery/engines/shm_build.py /build/
RUN /opt/venv/bin/python /build/shm_build.py --into /operators

FROM heavy AS pruned
COPY docker/prune /build/
RUN sh /build/prune && echo /opt/bloomery/container >"$(echo /opt/venv/lib/python3*/site-packages)/bloomery.pth"

FROM ${BUILD_IMAGE} AS application
COPY LICENSE serving.properties /opt/bloomery/
COPY models/shakespeare-bloom /opt/bloomery/models/shakespeare-bloom
COPY container /opt/bloomery/container
COPY code /opt/bloomery/code
RUN python3 -m compileall -q /opt/bloomery && chmod -R u=rwX,go=rX /opt/bloomery

FROM ${BASE_IMAGE}
ARG VARIANT=cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN groupadd --gid 10001 bloomery \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin bloomery \
    && mkdir -p /opt/ml/model
COPY --from=pruned /opt/venv /opt/venv
COPY docker/install /build/
COPY --from=lists /lists/out/rest.txt /build/
RUN --mount=type=bind,source=docker/wheels/rest,target=/mnt sh /build/install /build/rest.txt /mnt && rm -r /build
COPY --from=operators /operators /opt/venv/share/bloomery
COPY --chmod=755 docker/bloomery docker/healthcheck /usr/local/bin/
COPY --from=application /opt/bloomery /opt/bloomery

# SageMaker expects 0.0.0.0:8080, or SAGEMAKER_BIND_TO_PORT. /tmp is the one place that must be writable.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    SERVING_INFERENCE_ADDRESS=http://0.0.0.0:8080
WORKDIR /opt/bloomery
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# A model may load for an hour; a probe that fails meanwhile does not count.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60m --retries=3 CMD ["healthcheck"]
ENTRYPOINT ["bloomery"]
CMD ["serve"]
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bloomery" \
      org.opencontainers.image.description="Serves large language models as SageMaker and DJLServing clients expect" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true" \
      com.amazonaws.sagemaker.capabilities.multi-models="true"
