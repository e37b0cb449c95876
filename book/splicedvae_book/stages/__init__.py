"""The stages of `make results`, a file each; see :class:`splicedvae_book.stage.Stage`."""
