FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# The dependencies first, with a program that is none: they are built again only when the lock file changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
 && cargo build --release --locked \
 && rm -r src
COPY streams.toml ./
COPY src ./src
# A file that is older than what was built from the other one would not be built again.
RUN find src -name '*.rs' -exec touch {} + && cargo build --release --locked && strip target/release/feedmill

FROM debian:bookworm-slim
# Feeds over HTTPS are trusted by these.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/feedmill /usr/local/bin/feedmill
# nobody: it owns nothing, and nothing is written.
USER 65534:65534
ENTRYPOINT ["feedmill"]
CMD ["worker"]
# Redis is within reach and takes commands. There is nothing else in here that could ask.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["feedmill", "queue", "counts"]
