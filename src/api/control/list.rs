//! Lists, a page at a time.

use serde_json::{Value, json};

use super::Request;
use super::fields::unfit;
use crate::api::error::ApiError;

/// A part of a list: what stands in it, and where the next one begins.
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    marker: Option<String>,
}

/// The page that a request wants of `items`, which are in the order of their keys. No page has more
/// than `most`. A marker is the key of the item before, so that what comes and goes between two
/// pages neither hides nor repeats anything else.
pub fn page<T>(
    request: &Request<'_>,
    items: impl IntoIterator<Item = (String, T)>,
    most: usize,
) -> Result<Page<T>, ApiError> {
    let wanted = match request.operation.parameter("MaxItems") {
        None => most,
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| (1..=10_000).contains(number))
            .ok_or_else(|| unfit("maxItems", &text, format_args!("be between 1 and 10000")))?,
    };
    let marker = request.operation.parameter("Marker").filter(|marker| !marker.is_empty());
    Ok(cut(items, marker, wanted.min(most)))
}

fn cut<T>(
    items: impl IntoIterator<Item = (String, T)>,
    marker: Option<String>,
    most: usize,
) -> Page<T> {
    let is_before = |key: &String| marker.as_ref().is_some_and(|marker| key <= marker);
    let mut rest = items.into_iter().skip_while(|(key, _)| is_before(key)).peekable();
    let mut page = Page { items: Vec::new(), marker: None };
    while let Some((key, item)) = rest.next() {
        page.items.push(item);
        if page.items.len() == most {
            page.marker = rest.peek().is_some().then_some(key);
            break;
        }
    }
    page
}

impl Page<Value> {
    /// As Lambda answers it, under this name.
    pub fn into_value(self, name: &str) -> Value {
        let mut value = json!({ name: self.items });
        if let Some(marker) = self.marker {
            value["NextMarker"] = marker.into();
        }
        value
    }
}

impl<T, E> Page<Result<T, E>> {
    /// The page, or the first thing that went wrong with it.
    pub fn transpose(self) -> Result<Page<T>, E> {
        let items = self.items.into_iter().collect::<Result<_, _>>()?;
        Ok(Page { items, marker: self.marker })
    }
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn map<U>(self, with: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(with).collect(), marker: self.marker }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_whatever_comes_and_goes() {
        let items = |keys: &[&str]| -> Vec<(String, String)> {
            keys.iter().map(|key| ((*key).to_owned(), (*key).to_owned())).collect()
        };
        let first = cut(items(&["a", "b", "c", "d"]), None, 2);
        assert_eq!(
            (first.items, first.marker.clone()),
            (vec!["a".into(), "b".into()], Some("b".into()))
        );
        let second = cut(items(&["a", "c", "d"]), first.marker, 2);
        assert_eq!((second.items, second.marker), (vec!["c".into(), "d".into()], None));
        let none = cut(items(&["a"]), Some("z".into()), 2);
        assert_eq!((none.items.len(), none.marker), (0, None));
    }
}
