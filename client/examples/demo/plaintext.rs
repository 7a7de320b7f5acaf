//! Looking for plaintext in everything that the database holds.
//!
//! Every value of every table is read out and searched, as text and as bytes, in clear, in hex and in base64. Reading
//! values rather than files finds what a file has split over pages or compressed; the files are searched as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqliteConnection};
use std::path::Path;
use std::str::FromStr as _;

/// All values of all tables, one after the other.
pub async fn everything_in(database_url: &str) -> Vec<u8> {
    if database_url.starts_with("postgres") { postgres(database_url).await } else { sqlite(database_url).await }
}

/// All files of a directory, one after the other.
pub fn everything_under(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(everything_under(&path));
        } else {
            all.extend(std::fs::read(path).expect("a file"));
            all.push(b'\n');
        }
    }
    all
}

/// How often `text` stands in `haystack`, in clear or in a usual encoding.
pub fn count(haystack: &[u8], text: &str) -> usize {
    encodings(text).iter().map(|needle| haystack.windows(needle.len()).filter(|window| window == needle).count()).sum()
}

fn encodings(text: &str) -> Vec<Vec<u8>> {
    let mut encodings =
        vec![text.as_bytes().to_vec(), hex::encode(text).into_bytes(), hex::encode_upper(text).into_bytes()];
    // In the middle of base64 a text can begin at three places; what its neighbours share a character with is left out.
    for before in 0..3 {
        let encoded = BASE64.encode([vec![0; before], text.as_bytes().to_vec()].concat());
        let (first, last) = ((before * 8).div_ceil(6), (before + text.len()) * 8 / 6);
        encodings.push(encoded.as_bytes()[first..last].to_vec());
    }
    encodings
}

async fn sqlite(url: &str) -> Vec<u8> {
    let options = sqlx::sqlite::SqliteConnectOptions::from_str(url).expect("a URL").read_only(true);
    let mut connection: SqliteConnection = options.connect().await.expect("the database opens");
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select m.name, c.name from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table' order by 1, 2",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the tables");
    let mut all = Vec::new();
    for (table, column) in columns {
        let sql = format!("select cast(\"{column}\" as blob) from \"{table}\"");
        let values: Vec<Option<Vec<u8>>> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect("the values");
        append(&mut all, values);
    }
    connection.close().await.expect("the database closes");
    all
}

async fn postgres(url: &str) -> Vec<u8> {
    let mut connection = PgConnection::connect(url).await.expect("the database opens");
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text, data_type::text from information_schema.columns \
         where table_schema = 'public' order by 1, 2",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the tables");
    let mut all = Vec::new();
    for (table, column, kind) in columns {
        let value = match kind.as_str() {
            "bytea" => format!("\"{column}\""),
            // A cast to text also shows bytes that are nested in arrays or records, in hex.
            _ => format!("convert_to(\"{column}\"::text, 'UTF8')"),
        };
        let sql = format!("select {value} from \"{table}\"");
        let values: Vec<Option<Vec<u8>>> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect("the values");
        append(&mut all, values);
    }
    connection.close().await.expect("the database closes");
    all
}

fn append(all: &mut Vec<u8>, values: Vec<Option<Vec<u8>>>) {
    for value in values.into_iter().flatten() {
        all.extend(value);
        all.push(b'\n');
    }
}
