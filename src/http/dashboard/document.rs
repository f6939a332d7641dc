//! The document of an item, as MongoDB has it.

use axum::response::Response;
use maud::html;

use super::page::Page;
use super::view::tree;
use crate::http::ApiError;

pub(super) async fn show(page: Page) -> Result<Response, ApiError> {
    let wanted = page.params.text("source").zip(page.params.text("guid"));
    let (source, guid) = wanted.ok_or_else(|| ApiError::BadRequest("source and guid must be given".to_owned()))?;
    let found = page.app.store.find_document(source, guid).await?;
    let body = html! {
        div.head { div { h1 { "Document" } } }
        p.mono { (source) "#" (guid) }
        section.panel {
            @match &found {
                Some(document) => (tree(document)),
                None => p.dim { "There is no document of this item: its job is not done yet, or it was never seen." },
            }
        }
    };
    Ok(page.shell("Document", "imports", &body))
}
