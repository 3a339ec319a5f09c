# The image is a folder, /opt/nacos-drain, and nothing else: what the sidecar runs from is what is copied into the image of
# an app that has no Python (see examples/java-image).

# Gives the Python, the libraries that it is linked with and the authorities for https. Any image of glibc with python3
# (3.11 or newer), its pip and ca-certificates will do; nothing else of it is kept.
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
WORKDIR /src
# Wheels are there only where `make wheels` has put them, and are taken if they fit (the pattern may match nothing).
COPY requirements-image.lock buil[d]/wheel[s] ./
RUN install="python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
      --only-binary=:all: --require-hashes --target=/packages -r requirements-image.lock" \
 && { $install --no-index --find-links=. 2>/dev/null || $install; }
COPY LICENSE /opt/nacos-drain/
COPY image ./image
COPY sidecar /packages/sidecar
RUN python3 image/tree.py /packages

FROM scratch
LABEL org.opencontainers.image.title="nacos-drain" \
      org.opencontainers.image.description="Takes an app out of Nacos before it is stopped, and proves it." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/nacos-drain /opt/nacos-drain
ENV PATH=/opt/nacos-drain/bin
# Nothing but the tree is here: one that lacks something fails now.
RUN ["python3", "-IBS", "-c", "import ctypes, sidecar.adapters.process, sidecar.composition, sidecar.server, ssl"]
USER 65532:65532
EXPOSE 19081
HEALTHCHECK --interval=30s --timeout=5s --retries=3 CMD ["livez"]
ENTRYPOINT ["nacos-drain"]
CMD ["serve"]
