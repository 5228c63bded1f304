"""One attention layer, exactly: circuits, weights, gradients, descent."""
