//! Pods and functions as a real containerd tells them.

mod containerd;
mod protocol;

use std::collections::HashMap;
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, Result};
use hearth::observe::identity::{Bundles, Cri, Identity, Pod, Resolver, ResolverStats};

use self::containerd::Containerd;

const LABEL: &str = "hearth.function";

fn pod(container: Option<&str>) -> Pod {
    let told = |text: &str| Some(text.to_owned());
    Pod {
        name: told("web-0"),
        namespace: told("shop"),
        uid: told("12345678-1234-1234-1234-123456789abc"),
        container: container.and_then(told),
    }
}

fn of_container(id: &str) -> Identity {
    Identity {
        container_id: Some(id.to_owned()),
        ..Identity::default()
    }
}

#[tokio::test]
async fn a_container_is_told_with_its_pod_and_its_function() -> Result<()> {
    let containerd = Containerd::start().await?;
    let labels = HashMap::from([(LABEL.to_owned(), "by-label".to_owned())]);
    let annotations = HashMap::from([(LABEL.to_owned(), "by-annotation".to_owned())]);
    let sandbox = containerd.pod(&pod(None)).await?;
    let container = containerd
        .container(&sandbox, "app", labels, annotations)
        .await?;

    let cri = Cri::at(&containerd.socket())?;
    let known = cri.look_up(&container).await?.context("the container")?;
    assert_eq!(known.pod, pod(Some("app")));
    assert_eq!(known.label(LABEL), Some("by-label"));
    let pause = cri
        .look_up(&sandbox)
        .await?
        .context("the pod's own container")?;
    assert_eq!(pause.pod, pod(None));
    assert_eq!(cri.look_up(&"0".repeat(64)).await?, None);

    // What the bundle says is nearer than what the socket says.
    let bundles = Bundles::below(containerd.root());
    let resolver = Resolver::new(LABEL.to_owned(), bundles.clone(), Some(cri.clone()));
    let mut identity = of_container(&container);
    resolver.resolve(&mut identity).await;
    assert_eq!(identity.function.as_deref(), Some("by-annotation"));
    assert_eq!(identity.pod, Some(pod(Some("app"))));
    assert_eq!(resolver.stats(), ResolverStats::default());

    // And a rule's name is nearer than both.
    let mut named = Identity {
        function: Some("by-rule".to_owned()),
        ..of_container(&container)
    };
    resolver.resolve(&mut named).await;
    assert_eq!(named.function.as_deref(), Some("by-rule"));

    let nowhere = Bundles::below(containerd.root().join("nowhere"));
    let mut identity = of_container(&container);
    Resolver::new(LABEL.to_owned(), nowhere, Some(cri))
        .resolve(&mut identity)
        .await;
    assert_eq!(identity.function.as_deref(), Some("by-label"));
    containerd.stop().await
}

#[tokio::test]
async fn a_socket_that_does_not_answer_costs_a_second_and_is_counted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let nowhere = Bundles::below(folder.path().to_owned());
    let resolver = |socket: &str| -> Result<Resolver> {
        let cri = Cri::at(&folder.path().join(socket))?;
        Ok(Resolver::new(LABEL.to_owned(), nowhere.clone(), Some(cri)))
    };
    let mut identity = of_container("c1");
    let absent = resolver("absent.sock")?;
    absent.resolve(&mut identity).await;
    assert_eq!(
        absent.stats(),
        ResolverStats {
            failures: 1,
            ..ResolverStats::default()
        }
    );

    let _listener = UnixListener::bind(folder.path().join("mute.sock"))?;
    let mute = resolver("mute.sock")?;
    mute.resolve(&mut identity).await;
    assert_eq!(
        mute.stats(),
        ResolverStats {
            timeouts: 1,
            ..ResolverStats::default()
        }
    );
    assert_eq!(identity, of_container("c1"));
    Ok(())
}

#[tokio::test]
async fn a_socket_must_be_an_absolute_path() {
    let error = Cri::at("containerd.sock".as_ref())
        .expect_err("relative")
        .to_string();
    assert!(error.contains("absolute path"), "{error}");
}
