"""Data: `catalog` opens a source by name, `loader` orders it, `augment` prepares it."""
