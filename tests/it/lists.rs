//! Files of lists: what is in them, and that it is what was answered.

use std::fs::File;
use std::path::Path;

use datafusion::parquet::basic::Encoding;
use datafusion::parquet::column::page::Page;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};

use crate::support::{TestProject, files_below, run};

fn metadata(file: &Path) -> ParquetMetaData {
    SerializedFileReader::new(File::open(file).unwrap()).unwrap().metadata().clone()
}

/// Whether each column of the first row group has a dictionary.
fn dictionaries(file: &Path) -> Vec<bool> {
    let metadata = metadata(file);
    metadata.row_group(0).columns().iter().map(|column| column.dictionary_page_offset().is_some()).collect()
}

#[test]
fn scores_and_ranks_have_no_dictionary() {
    let scored = "SELECT 'a' AS id, CAST(0.5 AS REAL) AS score";
    let ranked = "SELECT 7 AS entity, 8 AS candidate, CAST(0.5 AS REAL) AS score, CAST(1 AS INT) AS rank";
    for (rows, expected) in [(scored, &[true, false][..]), (ranked, &[true, true, false, false])] {
        let project = TestProject::new("", &[("lists.sql", rows)]);
        project.run("run", &[]).ok();
        let copied = project.path().join("copied.parquet");
        run(&["sql", "-c", &format!("COPY ({rows}) TO '{}'", copied.display())]).ok();
        let lists = project.path().join("lake/lists");
        let published = lists.join(&files_below(&lists)[0]);
        for file in [copied, published] {
            assert_eq!(dictionaries(&file), expected, "{}", file.display());
        }
    }
}

/// Interactions of 700 items, whose ids are `id` of a number.
fn neighbors(id: &str) -> String {
    format!(
        "SELECT * FROM neighbors((SELECT {id} AS item, v * 31 % 97 AS u, v % 7 + 1.0 AS w FROM \
         (SELECT value AS v, value % 700 AS n FROM generate_series(0, 20999))), metric => 'rp3beta', k => 60)"
    )
}

/// Lists of more than one row group and page come back as they were answered, published and copied, whatever ids are; and
/// statistics of pages and chunks say what is in them.
#[test]
fn lists_come_back_as_they_were_answered() {
    let ids = [
        "n * 13043817825332782 - 77",
        "CAST(n - 300 AS INT)",
        "arrow_cast(concat('a rather long name of item ', n), 'Utf8View')",
        "arrow_cast(concat('i', n), 'Utf8View')",
        "concat(repeat('long or not ', n % 3), n)",
        "arrow_cast(concat(repeat('longer than statistics are ', 3), n), 'Utf8View')",
        "CAST(n AS DOUBLE)",
    ];
    for (at, id) in ids.iter().enumerate() {
        let query = neighbors(id);
        let project = TestProject::new("", &[("lists.sql", &query)]);
        project.run("run", &[]).ok();
        let copied = project.path().join("copied.parquet");
        let options = "OPTIONS ('max_row_group_size' '15000', 'data_page_row_count_limit' '1000')";
        run(&["sql", "-c", &format!("COPY ({query}) TO '{}' {options}", copied.display())]).ok();
        let (order, copied_name) = ("ORDER BY item, rank, neighbor_id", copied.display());
        let expected = project.sql(&format!("SELECT * FROM ({query}) {order}")).ok().stdout;
        assert_eq!(expected.lines().count(), 700 * 60 + 1, "{id}");
        assert_eq!(project.sql(&format!("SELECT * FROM lists {order}")).ok().stdout, expected, "{id}");
        assert_eq!(project.sql(&format!("SELECT * FROM '{copied_name}' {order}")).ok().stdout, expected, "{id}");
        // Pages that statistics rule out are not read.
        let some = expected.lines().nth(5000).unwrap().split(',').nth(1).unwrap();
        let literal = if (2..6).contains(&at) { format!("'{some}'") } else { some.to_owned() };
        let found = format!("SELECT * FROM '{copied_name}' WHERE neighbor_id = {literal} {order}");
        let of_some: String = std::iter::once("item,neighbor_id,score,rank")
            .chain(expected.lines().filter(|line| line.split(',').nth(1) == Some(some)))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(project.sql(&found).ok().stdout, of_some, "{id}");
        let number = |line: &str, at: usize| line.split(',').nth(at).unwrap().parse::<f32>().unwrap();
        let score = number(expected.lines().nth(5000).unwrap(), 2);
        let found = format!("SELECT * FROM '{copied_name}' WHERE score >= CAST({score} AS REAL) AND rank <= 3 {order}");
        let best = expected.lines().skip(1).filter(|line| number(line, 2) >= score && number(line, 3) <= 3.0);
        assert_eq!(
            project.sql(&found).ok().stdout.lines().skip(1).collect::<Vec<_>>(),
            best.collect::<Vec<_>>(),
            "{id}"
        );
        let metadata = metadata(&copied);
        assert_eq!(metadata.num_row_groups(), 3, "{id}");
        let column = metadata.row_group(0).column(1);
        assert!(column.statistics().is_some_and(|known| known.min_bytes_opt().is_some()), "{id}");
        assert!(column.encodings().any(|encoding| encoding == Encoding::RLE_DICTIONARY), "{id}");
        for plain in [2, 3] {
            let column = metadata.row_group(2).column(plain);
            assert!(column.statistics().is_some_and(|known| known.min_is_exact() && known.max_is_exact()), "{id}");
            assert!(column.encodings().all(|encoding| encoding != Encoding::RLE_DICTIONARY), "{id}");
        }
    }
}

/// The strings of the dictionary of a column, in the first row group.
fn dictionary(file: &Path, column: usize) -> Vec<Vec<u8>> {
    let reader = SerializedFileReader::new(File::open(file).unwrap()).unwrap();
    let mut pages = reader.get_row_group(0).unwrap().get_column_page_reader(column).unwrap();
    let Some(Page::DictionaryPage { buf, .. }) = pages.get_next_page().unwrap() else {
        return Vec::new();
    };
    let (mut rest, mut texts) = (&buf[..], Vec::new());
    while let Some((length, bytes)) = rest.split_first_chunk() {
        let (text, after) = bytes.split_at(u32::from_le_bytes(*length) as usize);
        texts.push(text.to_vec());
        rest = after;
    }
    texts
}

/// Operators hand out ids as keys of a dictionary in order to who writes them, which does not show where it writes values.
#[test]
fn ids_come_as_keys_and_are_written_as_values() {
    let query = neighbors("arrow_cast(concat('item ', n), 'Utf8View')");
    let project =
        TestProject::new("", &[("lists.sql", &query), ("parts.sql", &format!("-- partition_by: rank\n{query}"))]);
    project.run("run", &[]).ok();
    let lists = project.path().join("lake/lists");
    let file = project.path().join("lists.parquet");
    let types = "arrow_typeof(item) AS a, arrow_typeof(neighbor_id) AS b";
    let written = |rows: &str| format!("SELECT *, {types} FROM ({rows}) ORDER BY item, rank, neighbor_id");
    let read = |rows: &str| run(&["sql", "--format", "csv", "-c", &written(rows)]).ok().stdout;
    let expected = read(&query);
    for options in ["", "'compression' 'snappy'", "'dictionary_enabled' 'false'", "'statistics_enabled' 'none'"] {
        let options = if options.is_empty() { "" } else { &format!("OPTIONS ({options})") };
        let copy = format!("COPY ({query}) TO '{}' {options}", file.display());
        assert!(run(&["sql", "-c", &format!("EXPLAIN {copy}")]).ok().stdout.contains(", keys"), "{options}");
        run(&["sql", "-c", &copy]).ok();
        assert!(read(&format!("SELECT * FROM '{}'", file.display())) == expected, "{options}");
        if options.is_empty() {
            for file in [&file, &lists.join(&files_below(&lists)[0])] {
                let dictionary = dictionary(file, 1);
                assert!(dictionary.len() > 300 && dictionary.is_sorted(), "{}: {}", file.display(), dictionary.len());
            }
        }
    }
    for table in ["lists", "parts"] {
        assert!(project.sql(&written(table)).ok().stdout == expected, "{table}");
    }
}

/// Scores are compressed where that makes them smaller, and where a level is asked for; those that are no numbers come back, too.
#[test]
fn scores_are_compressed_where_it_helps() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("lists.parquet");
    let hash = "(value * 2654435761 % 16777216) / 16777216.0";
    for (score, options, expected) in [
        ("0.5", "", "ZSTD"),
        (hash, "", "UNCOMPRESSED"),
        (hash, "OPTIONS ('compression' 'zstd(3)')", "ZSTD"),
        ("'NaN'", "", "ZSTD"),
    ] {
        let rows = format!("SELECT value % 50000 AS id, CAST({score} AS REAL) AS score FROM generate_series(1, 50000)");
        run(&["sql", "-c", &format!("COPY ({rows}) TO '{}' {options}", file.display())]).ok();
        let metadata = metadata(&file);
        let column = metadata.row_group(0).column(1);
        assert!(format!("{:?}", column.compression()).starts_with(expected), "{score} {options}: {column:?}");
        let written = format!("SELECT * FROM '{}'", file.display());
        let differ = format!("SELECT count(*) FROM (({rows}) EXCEPT {written})");
        let counts = format!("SELECT ({differ}) AS missing, count(*) AS n FROM ({written})");
        assert_eq!(
            run(&["sql", "-c", &counts, "--format", "csv"]).ok().stdout,
            "missing,n\n0,50000\n",
            "{score} {options}"
        );
    }
}
