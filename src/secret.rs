//! Values that must not be seen: types that print masked, and the masking of URLs.

use std::{fmt, ops::Range};

use url::Url;

/// What stands in the place of a secret.
pub(crate) const MASK: &str = "****";

/// Words in names that announce a secret: of HTTP headers, and of parameters in the query of a URL. A word that ends with
/// one of the longer ones does too (`accesstoken`); a word that only begins with one does not (`keyword`, `author`).
///
/// `properties` is MongoDB's `authMechanismProperties`, `pass` the password of a Redis socket URL.
const SECRET_WORDS: [&str; 17] = [
    "auth",
    "authorization",
    "authentication",
    "cookie",
    "token",
    "key",
    "apikey",
    "secret",
    "session",
    "sid",
    "pass",
    "password",
    "passwd",
    "pwd",
    "sig",
    "signature",
    "properties",
];

/// Length from which a secret word counts at the end of a longer one.
const SUFFIX_CHARS: usize = 5;

/// Parameters of a URL that look like secrets by [`SECRET_WORDS`] and are none.
const PUBLIC_PARAMETERS: [&str; 2] = ["authsource", "authmechanism"];

/// A text that prints as `****`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The URL of Redis, which may hold a password; prints with it masked.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// The connection string of MongoDB, which may hold a password; prints with it masked.
#[derive(Clone, PartialEq, Eq)]
pub struct MongoUri(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl RedisUrl {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password, for the Redis client.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl MongoUri {
    pub(crate) fn new(uri: impl Into<String>) -> Self {
        Self(uri.into())
    }

    /// The connection string with its password, for the driver.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_connection(&self.0))
    }
}

impl fmt::Display for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_connection(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for MongoUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Says whether a header or parameter of this name is likely to carry a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    words(name).any(|word| {
        SECRET_WORDS.iter().any(|secret| word == *secret || (secret.len() >= SUFFIX_CHARS && word.ends_with(secret)))
    })
}

/// The words of a name, in lower case: `X-Api-Key`, `access_token` and `authMechanismProperties` have several.
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut spaced = String::with_capacity(name.len() + 4);
    let mut before_is_lower = false;
    for char in name.chars() {
        if char.is_uppercase() && before_is_lower {
            spaced.push(' ');
        }
        before_is_lower = char.is_lowercase();
        spaced.extend(char.to_lowercase());
    }
    let words: Vec<String> =
        spaced.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    words.into_iter()
}

/// Masks the URL of a feed: password, a user name without a password (often a token), parameters named like secrets.
pub(crate) fn mask_url(url: &str) -> String {
    let start = after_scheme(url);
    // Paths may hold an `@` (`https://host/@user`), so the user info ends where the parser says. Of a text it cannot
    // read, too much is masked rather than too little.
    let user_info = if Url::parse(url).is_ok() {
        let authority = url[start..].find(['/', '\\', '?', '#']).map_or(url.len(), |end| start + end);
        url[..authority].rfind('@').filter(|&at| at >= start).map(|at| start..at)
    } else {
        widest_user_info(url)
    };
    mask(url, user_info.as_ref())
}

/// Masks the URL of a server. No path of theirs holds an `@`, so a password with a raw `/` or `?` in it is covered too.
pub(crate) fn mask_connection(url: &str) -> String {
    mask(url, widest_user_info(url).as_ref())
}

fn after_scheme(url: &str) -> usize {
    url.find("://").map_or(0, |at| at + "://".len())
}

fn widest_user_info(url: &str) -> Option<Range<usize>> {
    let start = after_scheme(url);
    url[start..].rfind('@').map(|at| start..start + at)
}

fn mask(url: &str, user_info: Option<&Range<usize>>) -> String {
    let mut masked = String::with_capacity(url.len());
    let mut rest = url;
    if let Some(&Range { start, end }) = user_info {
        masked.push_str(&url[..start]);
        if let Some((user, _)) = url[start..end].split_once(':') {
            masked.push_str(user);
            masked.push(':');
        }
        masked.push_str(MASK);
        rest = &url[end..];
    }
    let Some((path, query)) = rest.split_once('?') else {
        return masked + rest;
    };
    let parameters: Vec<String> = query.split('&').map(mask_parameter).collect();
    masked + path + "?" + &parameters.join("&")
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret_name(name) && !PUBLIC_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) => {
            format!("{name}={MASK}")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_servers_are_masked_whatever_characters_they_hold() {
        assert_eq!(mask_connection("redis://:hunter2@db:6379/1"), "redis://:****@db:6379/1");
        assert_eq!(mask_connection("rediss://default:a/b?c#d@e@db"), "rediss://default:****@db");
        assert_eq!(
            mask_connection("mongodb://u:p@a:1,b:2/?authSource=admin&tlsCertificateKeyFilePassword=x"),
            "mongodb://u:****@a:1,b:2/?authSource=admin&tlsCertificateKeyFilePassword=****"
        );
        assert_eq!(mask_connection("redis+unix:///run/r.sock?db=1&pass=x"), "redis+unix:///run/r.sock?db=1&pass=****");
        assert_eq!(mask_connection("default:hunter2@db:6379"), "default:****@db:6379");
        assert_eq!(mask_connection("redis://db:6379"), "redis://db:6379");
    }

    #[test]
    fn an_at_sign_in_the_path_of_a_feed_is_no_user_info() {
        assert_eq!(mask_url("https://blog.example/feed/@someone"), "https://blog.example/feed/@someone");
        assert_eq!(
            mask_url("https://me:pw@blog.example/@x?a=1&api_key=k"),
            "https://me:****@blog.example/@x?a=1&api_key=****"
        );
        assert_eq!(mask_url("https://ghp_token@blog.example/"), "https://****@blog.example/");
        assert_eq!(mask_url("https://me:p/w@blog.example/"), "https://me:****@blog.example/");
    }

    #[test]
    fn a_name_is_secret_by_its_words_and_not_by_its_letters() {
        for name in ["key", "X-Api-Key", "api_key", "accessToken", "accesstoken", "Authorization", "Set-Cookie", "sig"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["keyword", "author", "q", "passenger", "design", "session_of"] {
            assert_eq!(is_secret_name(name), name == "session_of", "{name}");
        }
    }

    #[test]
    fn debug_and_display_of_secrets_never_show_them() {
        let printed = format!("{:?} {0} {:?} {1}", Secret::new("hunter2"), RedisUrl::new("redis://:hunter2@db"));
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(Secret::new("hunter2").expose(), "hunter2");
    }
}
