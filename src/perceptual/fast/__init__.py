"""Fast painting on a CPU: a network as a row of convolutions on folded grids, in 8 bits or float32."""
