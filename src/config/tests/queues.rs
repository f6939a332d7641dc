//! Which section is which queue.

use super::super::load::BUILT_IN;
use super::{Start, assert_contains, refused};

#[test]
fn a_renamed_queue_keeps_the_defaults_of_its_role() {
    let config = Start::new()
        .file("[queues]\nimport = \"items\"\n[stream.items]\nattempts = 9\n[stream.feed_fetch_queue]\nattempts = 8\n")
        .load()
        .unwrap();
    assert_eq!(config.import_queue.name, "items");
    assert_eq!((config.import_queue.attempts, config.import_queue.batch_size), (9, 100));
    assert_eq!((config.fetch_queue.attempts, config.fetch_queue.batch_size), (8, 1));
}

#[test]
fn a_queue_renamed_by_the_environment_is_found_by_both_names_and_the_new_one_wins() {
    let file = "[stream.items]\nattempts = 9\n[stream.job_import_queue]\nattempts = 5\nconcurrency = 4\n";
    let config = Start::new().file(file).env("BULL_QUEUE_NAME", "items").env("WORKER_BATCH_SIZE", "6").load().unwrap();
    assert_eq!(config.import_queue.name, "items");
    assert_eq!((config.import_queue.attempts, config.import_queue.concurrency), (9, 4));
    assert_eq!(config.import_queue.batch_size, 6);

    let config = Start::new().file(BUILT_IN).env("FEEDMILL_FETCH_QUEUE_NAME", "feeds").load().unwrap();
    assert_eq!((config.fetch_queue.name.as_str(), config.fetch_queue.batch_size), ("feeds", 1));
}

#[test]
fn swapped_names_configure_the_queue_that_has_the_name_now() {
    let config = Start::new()
        .file("[stream.job_import_queue]\nattempts = 9\n")
        .env("BULL_QUEUE_NAME", "feed_fetch_queue")
        .env("FEEDMILL_FETCH_QUEUE_NAME", "job_import_queue")
        .load()
        .unwrap();
    assert_eq!((config.fetch_queue.attempts, config.import_queue.attempts), (9, 3));
}

#[test]
fn a_section_of_no_queue_is_refused_with_the_names_there_are() {
    let problems = refused("[stream.job_import_queu]\nattempts = 9\n");
    assert_eq!(
        problems,
        ["stream.job_import_queu (streams.toml line 1): names no queue; accepted: stream.job_import_queue and \
             stream.feed_fetch_queue"]
    );
}

#[test]
fn the_two_queues_have_different_and_plain_names() {
    let problems = refused("[queues]\nfetch = \"job_import_queue\"\n");
    assert_contains(&problems[0], &["queues.fetch = \"job_import_queue\"", "is also queues.import"]);
    let problems = Start::new().env("BULL_QUEUE_NAME", "a{b}").refused();
    assert_contains(&problems[0], &["queues.import = \"a{b}\" (BULL_QUEUE_NAME)", "letters, digits and _ . -"]);
}
