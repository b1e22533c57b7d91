//! The launcher: starts and reaps workers on control's order, and proves their end. No NIXL, no Kubernetes, no threads.
