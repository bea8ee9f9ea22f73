"""What every room builds on: errors, protocols, ragged arrays, atomic files, keyed random numbers, devices."""
