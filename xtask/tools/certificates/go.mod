// Makes the certificates of `cargo xtask cluster`. Nothing but Go's own packages.
module nixl-transfer.io/tools/certificates

go 1.26.0
