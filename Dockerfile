# syntax=docker/dockerfile:1
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

# glibc, root certificates and time zones, no shell; runs as a user without rights.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/feedmill /usr/local/bin/feedmill
ENTRYPOINT ["feedmill"]
CMD ["worker"]
# Redis is within reach and takes commands. There is nothing else in here that could ask.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["feedmill", "queue", "counts"]
