//! What `config show` prints, and that no secret is in it.

use super::super::{Overrides, show};
use super::{Start, assert_contains};

const SECRETS: &str = r#"
[redis]
url = "redis://default:hunter2@db:6379/1"
[mongodb]
uri = "mongodb://u:hunter2@a,b/?authSource=admin"
[queues]
import = "items.v2"
[stream."items.v2"]
backoff = { type = "fixed", delay = "5s" }
remove_on_fail = { count = 10, age = "30d" }
[[feed]]
name = "a"
url = "https://me:hunter2@a.example/?token=hunter2"
source = "a"
schedule = "every 15m"
headers = { Authorization = "Bearer hunter2", X-Api-Key = "hunter2", Cookie = "s=hunter2", Accept-Language = "de" }
"#;

#[test]
fn what_is_shown_is_toml_that_loads_to_the_same_configuration_but_for_the_secrets() {
    let config =
        Start::new().file(SECRETS).env("WORKER_FLUSH_MS", "1500").env("FEEDMILL_TOKEN", "hunter2").load().unwrap();
    let shown = show::render(&config);
    let again = Start::new().file(&shown).load().unwrap();
    assert_eq!(again.import_queue, config.import_queue);
    assert_eq!(again.fetch_queue, config.fetch_queue);
    assert_eq!(again.fetch, config.fetch);
    assert_eq!(again.redis.prefix, config.redis.prefix);
    assert_eq!(again.mongodb.database, config.mongodb.database);
    assert_eq!(again.feeds[0].schedule, config.feeds[0].schedule);
    assert_eq!(again.feeds[0].headers["Accept-Language"].expose(), "de");
    assert_eq!(again.redis.url.expose(), "redis://default:****@db:6379/1");
}

#[test]
fn a_url_that_holds_a_secret_is_no_source() {
    for url in ["https://me:hunter2@b.example/", "https://b.example/?token=hunter2"] {
        let file = format!("[[feed]]\nname = \"b\"\nurl = \"{url}\"\n");
        let refused = Start::new().file(&file).load().unwrap_err().to_string();
        assert_contains(&refused, &["feed.b.url", "set feed.source"]);
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn secrets_are_in_nothing_that_is_printed() {
    let config = Start::new().file(SECRETS).env("FEEDMILL_TOKEN", "hunter2").load().unwrap();
    let json = show::to_json(&config);
    for printed in [show::render(&config), json.to_string(), format!("{config:?}")] {
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    assert_contains(&show::render(&config), &["# FEEDMILL_TOKEN: set", "https://me:****@a.example/?token=****"]);
    assert_eq!(json["http"]["token"], "set");
    assert_eq!(json["redis"]["url"], "redis://default:****@db:6379/1");
    assert_eq!(json["feed"][0]["headers"]["X-Api-Key"], "****");
    assert_eq!(json["stream"]["items.v2"]["remove_on_fail"]["count"], 10);
    assert_eq!(config.mongodb.uri.expose(), "mongodb://u:hunter2@a,b/?authSource=admin");
}

#[test]
fn what_is_shown_says_where_each_value_was_set() {
    let config = Start::new()
        .file("[stream.job_import_queue]\nbackoff = { delay = \"2s\" }\nattempts = 4\n")
        .env("WORKER_CONCURRENCY", "20")
        .flags(Overrides { redis_url: Some("redis://flag".to_owned()), ..Overrides::default() })
        .load()
        .unwrap();
    let shown = show::render(&config);
    assert_contains(
        &shown,
        &[
            "# file: streams.toml\n",
            "# FEEDMILL_TOKEN: unset\n",
            "url = \"redis://flag\"  # --redis-url\n",
            "concurrency = 20  # WORKER_CONCURRENCY\n",
            "attempts = 4  # streams.toml line 3\n",
            "}  # streams.toml line 2\n",
            "flush = \"3s\"\n",
        ],
    );
    assert_contains(&show::render(&Start::new().load().unwrap()), &["# file: none\n"]);
}
