"""Data: `sources` reads small sets into memory, `resident` orders them, `augment` prepares them."""
