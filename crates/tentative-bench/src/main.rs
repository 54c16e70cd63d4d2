//! `tentative-bench commands TENTATIVE PAIRS [ROW]` measures; `tentative-bench worker` is what it starts inside.

#![forbid(unsafe_code)]

use std::{env, path::Path};

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["worker"] => tentative_bench::worker::serve(),
        ["commands", tentative, pairs] => {
            tentative_bench::rows::measure(Path::new(tentative), pairs.parse()?, None)
        }
        ["commands", tentative, pairs, row] => {
            tentative_bench::rows::measure(Path::new(tentative), pairs.parse()?, Some(row))
        }
        _ => bail!("usage: tentative-bench commands TENTATIVE PAIRS [ROW]"),
    }
}
