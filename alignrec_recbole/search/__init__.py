"""Choice of hyper-parameters on validation: grids, and studies that several workers share."""
