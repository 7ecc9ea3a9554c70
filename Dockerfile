# docker build -t kidney-disease-classifier .
# How to run it: docs/guides/docker.md

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches stay on the building machine; the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin nephros \
    && install -D target/release/nephros /out/nephros \
    && /out/nephros init /out/data

# Same Debian release as the build stage: the binary needs its glibc and nothing else.
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="nephros" \
      org.opencontainers.image.description="Kidney CT slice classification; for research, not a medical device" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out/nephros /usr/local/bin/nephros
# The project folder: configuration, artifacts, logs. All that the process may write. A new volume
# starts as a copy of it, so that a server without a model can be asked to train one.
COPY --from=build --chown=65532:65532 /out/data /data
ENV HOME=/data
WORKDIR /data
VOLUME /data
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["nephros", "healthcheck", "--port", "8080"]
ENTRYPOINT ["nephros"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
