# The image of multiend: one program, no shell, no rights.
#
#   docker build --tag multiend .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges \
#     --volume multiend-data:/var/lib/multiend --volume ./multiend.toml:/etc/multiend/multiend.toml:ro \
#     --publish 127.0.0.1:9614:9614 multiend
#
# The user is 65532, here and in charts/multiend: the configuration has to be readable for it.

FROM rust:1.94-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package multiend --bin multiend \
 && install -D --mode=0755 --strip target/release/multiend /image/usr/bin/multiend \
 && install -D --mode=0644 docs/multiend.example.toml /image/usr/share/doc/multiend/multiend.example.toml \
 && install --mode=0644 --target-directory=/image/usr/share/doc/multiend LICENSE-MIT LICENSE-APACHE \
 && install --directory /image/var/lib/multiend

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/usr /usr
COPY --from=build --chown=65532:65532 /image/var/lib/multiend /var/lib/multiend
USER 65532:65532
# The database with SQLite, and last-run.json with any: keep it when the container is replaced.
VOLUME /var/lib/multiend
WORKDIR /var/lib/multiend
# SQLite writes what does not fit into memory where it may: there is no other place.
ENV MULTIEND_CONFIG=/etc/multiend/multiend.toml \
    MULTIEND_DATA_DIR=/var/lib/multiend \
    MULTIEND_HTTP__LISTEN=0.0.0.0:9614 \
    SQLITE_TMPDIR=/var/lib/multiend
EXPOSE 9614
ENTRYPOINT ["/usr/bin/multiend"]
CMD ["serve"]
