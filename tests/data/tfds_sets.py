"""Small sets in TFDS's own layout: built by TFDS as array_record, rewritten as TFRecord."""

import io
import shutil

import numpy as np
from PIL import Image
from tensorboardX.record_writer import RecordWriter

NAMES = ("ant", "bee", "cow", "dog", "elk")


def draw(size, channels, seed):
    """Images u8[size,12,10,channels] and labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 12, 10, channels), np.uint8)
    return images, rng.integers(0, len(NAMES), size).astype(np.int32)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "png")
    file.seek(0)
    return file


def build(root, name, parts, *, shape=None, version="3.0.1", shards=3, names=NAMES):
    """Builds {part: (images, labels)} by TFDS in root/name/version, as array_record, in order."""
    import tensorflow_datasets as tfds

    shape = shape or next(iter(parts.values()))[0].shape[1:]
    label = {"names": list(names)} if names else {"num_classes": len(NAMES)}
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(**label),
    }
    examples = {
        part: [
            {"id": f"example {i}", "image": png(image), "label": int(label)}
            for i, (image, label) in enumerate(zip(images, labels))
        ]
        for part, (images, labels) in parts.items()
    }
    return write(root, name, features, examples, version=version, shards=shards)


def write(root, name, features, examples, *, version="3.0.1", shards=3):
    """Builds {part: examples} by TFDS in root/name/version, as array_record, in order."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_builder, dataset_info

    class Set(dataset_builder.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self):
            return dataset_info.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(found) for part, found in examples.items()}

        def _generate_examples(self, found):
            yield from enumerate(found)

    Set.name = name
    config = tfds.download.DownloadConfig(num_shards=shards)
    builder = Set(data_dir=str(root), file_format="array_record")
    builder.download_and_prepare(download_config=config)
    return root / name / version


def as_parquet(folder, target):
    """The same set with its shards as Parquet files of one column, as TFDS writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from array_record.python.array_record_module import ArrayRecordReader

    shutil.copytree(folder, target)
    for path in sorted(target.glob("*.array_record-*")):
        reader = ArrayRecordReader(str(path))
        records = pa.table({"data": pa.array(reader.read_all(), pa.binary())})
        pq.write_table(records, str(path).replace("array_record", "parquet"))
        reader.close()
        path.unlink()
    info = target / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"parquet"'))
    return target


def as_tfrecord(folder, target):
    """The same set with its shards as TFRecord files."""
    from array_record.python.array_record_module import ArrayRecordReader

    shutil.copytree(folder, target)
    for path in sorted(target.glob("*.array_record-*")):
        reader = ArrayRecordReader(str(path))
        writer = RecordWriter(str(path).replace("array_record", "tfrecord"))
        for record in reader.read_all():
            writer.write(record)
        writer.close()
        reader.close()
        path.unlink()
    info = target / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    return target
