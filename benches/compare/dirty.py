"""Writes about 20 M dirty rows, dirty20m: the table Online Retail II (UCI, CC BY 4.0; Chen, D., 2012) once per shop, each
shop with keys of its own.

Usage: dirty.py TRANSACTIONS.parquet OUT_DIR. The same files each time. What is wrong in the table stays wrong.
"""
import pathlib
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHOPS, FILES = 20, 8

source, out = sys.argv[1], pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
once = pq.read_table(source).replace_schema_metadata(None)
for at, field in enumerate(once.schema):
    if pa.types.is_large_string(field.type):
        once = once.set_column(at, field.name, once[field.name].cast(pa.string()))
group = once.num_rows


def shop(number):
    """One copy: invoice 489434 is 01489434 in shop 1, customer 13085 is 113085, product 22041 is 0122041."""
    table = once
    # A letter before the number stays there: C01489449 is a cancellation.
    invoice = pc.replace_substring_regex(once["invoice"], "^([A-Z]?)", rf"\1{number:02}")
    table = table.set_column(0, "invoice", invoice)
    code = pc.binary_join_element_wise(f"{number:02}", once["stock_code"], "")
    table = table.set_column(1, "stock_code", code)
    return table.set_column(6, "customer_id", pc.add(once["customer_id"], 100_000 * number))


rows = pa.concat_tables(shop(number) for number in range(1, SHOPS + 1))
each = -(-rows.num_rows // FILES)
for number in range(FILES):
    part = rows.slice(number * each, each)
    pq.write_table(part, out / f"part-{number}.parquet", compression="zstd", row_group_size=group)
print(f"{rows.num_rows:,} rows in {FILES} files")
