//! The pool of workers: warm ones, supervision, proof of their end.
