# The two images, for people with Docker: `docker build --target operator .` and `docker build --target agent .`. What stands
# in them is decided by `cargo xtask image`, with which `cargo xtask cluster` makes them without Docker.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo xtask image --release operator /images/operator && cargo xtask image --release agent /images/agent

FROM scratch AS operator
COPY --from=build /images/operator /
ENV PATH=/usr/bin
USER 65532:65532
ENTRYPOINT ["/usr/bin/transfer-operator"]

# As root: it opens files of any owner for the jobs that may use their volume. The chart takes all capabilities away that
# it does not need for that.
FROM scratch AS agent
COPY --from=build /images/agent /
ENV PATH=/usr/bin
ENTRYPOINT ["/usr/bin/transfer-agent"]
