//! Asks a container runtime for pods, by the Kubernetes Container Runtime Interface.
//!
//! Two calls of `runtime.v1.RuntimeService` and the fields of their messages that are
//! needed; what else a runtime sends is skipped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use thiserror::Error;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::Pod;

/// Bytes of an answer that are taken at most; with a filter by id it holds one item.
const ANSWER_BYTES: usize = 1 << 20;

/// A CRI socket.
#[derive(Clone, Debug)]
pub struct Cri {
    socket: PathBuf,
    channel: Channel,
}

/// What the runtime knows of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its pod.
    pub pod: Pod,
    /// Labels and annotations: the container's, then the pod's.
    pub labels: [HashMap<String, String>; 4],
}

impl Known {
    /// The value of a label or annotation; the container's counts before its pod's.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .iter()
            .find_map(|labels| labels.get(key))
            .map(String::as_str)
    }
}

/// Why the runtime could not be asked.
#[derive(Debug, Error)]
pub enum CriError {
    /// The socket's path is no such thing.
    #[error(
        "`identity.cri_socket` is {0}; write the absolute path of a socket, such as \"/run/containerd/containerd.sock\""
    )]
    Socket(PathBuf),
    /// The call failed.
    #[error("{socket} did not answer {call}: {status}; does it speak CRI runtime.v1?")]
    Call {
        /// The socket.
        socket: PathBuf,
        /// Which call.
        call: &'static str,
        /// Why.
        status: Box<tonic::Status>,
    },
}

impl Cri {
    /// The runtime behind this socket; it is connected to when it is first asked, and anew
    /// when it was away. Needs a tokio runtime.
    pub fn at(socket: &Path) -> Result<Self, CriError> {
        let wrong = || CriError::Socket(socket.to_owned());
        let path = socket
            .to_str()
            .filter(|_| socket.is_absolute())
            .ok_or_else(wrong)?;
        let endpoint = Endpoint::from_shared(format!("unix://{path}")).map_err(|_| wrong())?;
        let channel = endpoint
            .connect_timeout(Duration::from_secs(1))
            .connect_lazy();
        Ok(Self {
            socket: socket.to_owned(),
            channel,
        })
    }

    /// What the runtime knows of the container with this id; `None` when it has no such
    /// container. That of a pod itself (its pause container) has the pod's id.
    pub async fn look_up(&self, id: &str) -> Result<Option<Known>, CriError> {
        let filter = ContainerFilter { id: id.to_owned() };
        let containers: ListContainersResponse = self
            .call(
                "ListContainers",
                ListContainersRequest {
                    filter: Some(filter),
                },
            )
            .await?;
        // A filter also takes a prefix of an id.
        let container = containers
            .containers
            .into_iter()
            .find(|container| container.id == id);
        let pod = container
            .as_ref()
            .map_or(id, |container| &container.pod_sandbox_id);
        let filter = PodSandboxFilter { id: pod.to_owned() };
        let pods: ListPodSandboxResponse = self
            .call(
                "ListPodSandbox",
                ListPodSandboxRequest {
                    filter: Some(filter),
                },
            )
            .await?;
        let sandbox = pods.items.into_iter().find(|item| item.id == pod);
        if container.is_none() && sandbox.is_none() {
            return Ok(None);
        }
        let told = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let sandbox = sandbox.unwrap_or_default();
        let container = container.unwrap_or_default();
        let names = sandbox.metadata.unwrap_or_default();
        Ok(Some(Known {
            pod: Pod {
                name: told(&names.name),
                namespace: told(&names.namespace),
                uid: told(&names.uid),
                container: container.metadata.and_then(|metadata| told(&metadata.name)),
            },
            labels: [
                container.labels,
                container.annotations,
                sandbox.labels,
                sandbox.annotations,
            ],
        }))
    }

    async fn call<Q, A>(&self, call: &'static str, question: Q) -> Result<A, CriError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let failed = |status| CriError::Call {
            socket: self.socket.clone(),
            call,
            status: Box::new(status),
        };
        let path = format!("/runtime.v1.RuntimeService/{call}");
        let path = PathAndQuery::try_from(path)
            .map_err(|error| failed(tonic::Status::internal(error.to_string())))?;
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES);
        let ready = client.ready().await;
        ready.map_err(|error| failed(tonic::Status::unavailable(error.to_string())))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = client
            .unary(tonic::Request::new(question), path, codec)
            .await;
        Ok(answer.map_err(failed)?.into_inner())
    }
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<ContainerFilter>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerFilter {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(map = "string, string", tag = "8")]
    labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "9")]
    annotations: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<PodSandboxFilter>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxFilter {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "5")]
    labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "6")]
    annotations: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}
