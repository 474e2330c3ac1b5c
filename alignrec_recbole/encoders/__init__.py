"""Encoders: an item table in, one row per item out, missing modalities explicit.

registry    the encoders by name, without their libraries
base        the interface of an encoder
batches     items through an encoder, batch by batch
encode      a table by an encoder's name, in memory: `encode_items`
extraction  feature files made on disk: resumed, sharded, masked
lookup      features by name: which file or encoder, without reading it
cache       features by name: a file, or the encoder's rows made once
"""
