//! Where a layer of a function comes from.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a source that is an image begins with.
const IMAGE: &str = "oci:";

/// A layer, or an image of several: a directory, a tar archive (plain or compressed by gzip), or
/// `oci:PATH[:TAG]`, an image in an OCI layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// A directory or an archive.
    Path(PathBuf),
    /// An image.
    Image {
        /// The directory of the layout.
        layout: PathBuf,
        /// Which, where it has several.
        tag: Option<String>,
    },
}

/// A text that is no source.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "\"{0}\" is no layer: write the absolute path of a directory or of a tar archive, without `..`, \
     or \"oci:/PATH:TAG\" for an image in an OCI layout"
)]
pub struct NotASource(String);

impl Source {
    /// The path on the node.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Image { layout: path, .. } => path,
        }
    }

    /// The same, at another path.
    #[must_use]
    pub fn at(self, path: PathBuf) -> Self {
        match self {
            Self::Path(_) => Self::Path(path),
            Self::Image { tag, .. } => Self::Image { layout: path, tag },
        }
    }

    /// As [`FromStr`], but a relative path is one, too: for who knows where it begins.
    #[must_use]
    pub fn relative(text: &str) -> Self {
        let Some(image) = text.strip_prefix(IMAGE) else {
            return Self::Path(text.into());
        };
        match image.rsplit_once(':') {
            Some((layout, tag)) if !tag.contains('/') && !tag.is_empty() => Self::Image {
                layout: layout.into(),
                tag: Some(tag.to_owned()),
            },
            _ => Self::Image {
                layout: image.into(),
                tag: None,
            },
        }
    }
}

impl FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        let source = Self::relative(text);
        if is_plain(source.path()) && !text.contains('\0') {
            return Ok(source);
        }
        Err(NotASource(text.chars().take(200).collect()))
    }
}

/// Absolute, no root, and it never goes up.
pub(crate) fn is_plain(path: &Path) -> bool {
    let goes_up = |part: Component<'_>| matches!(part, Component::ParentDir);
    path.is_absolute() && path != Path::new("/") && !path.components().any(goes_up)
}

impl TryFrom<String> for Source {
    type Error = NotASource;

    fn try_from(text: String) -> Result<Self, NotASource> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Image { layout, tag: None } => write!(f, "{IMAGE}{}", layout.display()),
            Self::Image {
                layout,
                tag: Some(tag),
            } => write!(f, "{IMAGE}{}:{tag}", layout.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_it_is_written() {
        let image = |tag: Option<&str>| Source::Image {
            layout: "/srv/image".into(),
            tag: tag.map(str::to_owned),
        };
        for (text, source) in [
            ("/srv/shop", Source::Path("/srv/shop".into())),
            ("/srv/a:b.tar", Source::Path("/srv/a:b.tar".into())),
            ("oci:/srv/image", image(None)),
            ("oci:/srv/image:v1.2", image(Some("v1.2"))),
        ] {
            assert_eq!(text.parse(), Ok(source.clone()), "{text}");
            assert_eq!(source.to_string(), text);
        }
        // A colon before a slash belongs to the path.
        let port: Source = "oci:/srv/a:5000/image".parse().expect("a source");
        assert_eq!(port.path(), Path::new("/srv/a:5000/image"));
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused_with_what_to_write() {
        for text in [
            "",
            "shop",
            "./shop",
            "/srv/../etc",
            "/",
            "oci:",
            "oci:image:v1",
            "/a\0b",
        ] {
            let error = text.parse::<Source>().expect_err(text).to_string();
            assert!(error.contains("write the absolute path"), "{error}");
        }
    }
}
