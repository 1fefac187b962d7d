# The image of the Outlit ingest proxy: a virtual environment with the locked dependencies and the proxy, no pip,
# no compiler. Releases should pin the base by digest (python:3.11-slim-bookworm@sha256:...) and let a bot renew it:
# a tag is a moving target, a digest without renewal an ageing one.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Dependencies before the source, so that a change of the source leaves this layer as it is.
COPY requirements/run.lock requirements/build.lock requirements/
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r requirements/build.lock \
 && python3 -m venv --without-pip /opt/outlit-proxy \
 && /opt/build/bin/pip --python /opt/outlit-proxy/bin/python install --no-compile --require-hashes -r requirements/run.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
# Compiled here, for the user cannot write beside the sources; and never compared with them by time, because
# builders that make images reproducible rewrite the times of files.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/build/bin/pip --python /opt/outlit-proxy/bin/python install --no-compile --no-deps dist/*.whl \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/outlit-proxy/lib

FROM ${BASE}
COPY --from=build /opt/outlit-proxy /opt/outlit-proxy
# Python's official images come without compiled files: each start, and each health check, would compile what it
# imports anew. They come with pip, too, which nothing here needs.
# The user is a number, since Debian has a system user `proxy` already; the same as that of distroless images.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip \
 && python3 -m compileall -q --invalidation-mode unchecked-hash \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && mkdir /data && chown 65532:65532 /data
USER 65532:65532
WORKDIR /data
# All that is ever written: a read-only root needs no other place, neither /tmp nor a home.
VOLUME /data

# In a container the listeners must be reachable from outside it; on bare metal they default to loopback.
ENV PATH=/opt/outlit-proxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OUTLIT_PROXY_FRONT_LISTEN=0.0.0.0:8080 \
    OUTLIT_PROXY_OPS_LISTEN=0.0.0.0:9090 \
    OUTLIT_PROXY_BUFFER_URL=sqlite:////data/outlit-proxy.db
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Each check starts Python: a quarter of a second of a core. Kubernetes has probes of its own, by HTTP.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["outlit-proxy", "healthcheck"]
ENTRYPOINT ["outlit-proxy"]
CMD ["run"]

# Last, because they differ with each build: `make image` gives them.
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="Outlit ingest proxy" \
      org.opencontainers.image.description="Accepts Outlit events, keeps them, and delivers them in order within the limits" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="MIT"
