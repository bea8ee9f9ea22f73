"""What every room stands on: errors, protocols, ragged arrays, whole files, keyed random numbers, devices."""
