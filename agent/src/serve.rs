//! `/metrics`, `/readyz` and `/healthz` over HTTP.
