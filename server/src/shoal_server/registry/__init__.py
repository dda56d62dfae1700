"""Bundles: their blobs and manifests, the versions and aliases of models, and the signed list of what may run."""
