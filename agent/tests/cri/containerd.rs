//! A containerd of the test's own, with one image and pods on the host's network.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hearth::observe::identity::Pod;
use http::uri::PathAndQuery;
use prost::Message;
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::protocol as p;

const IMAGE: &str = "hearth.test/pause:1";

pub(crate) struct Containerd {
    folder: TempDir,
    process: Child,
    channel: Channel,
}

impl Containerd {
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("hearth-cri-").tempdir()?;
        let root = folder.path();
        let config = root.join("config.toml");
        let at = root.display();
        fs::write(
            &config,
            format!(
                r#"version = 2
root = "{at}/root"
state = "{at}/run/containerd"
[grpc]
address = "{at}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{at}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
container_annotations = ["hearth.*"]
"#
            ),
        )?;
        let log = fs::File::create(root.join("log"))?;
        let process = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("`containerd` is missing: apt-get install containerd")?;
        let socket = root.join("containerd.sock");
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect_lazy();
        let containerd = Self {
            folder,
            process,
            channel,
        };
        containerd.answers().await?;
        containerd.import()?;
        Ok(containerd)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    /// Where `run/containerd` is.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Runs a pod; gives its id.
    pub(crate) async fn pod(&self, pod: &Pod) -> Result<String> {
        let question = p::RunPodSandboxRequest {
            config: Some(Self::config(pod)),
        };
        let answer: p::RunPodSandboxResponse = self.call("RunPodSandbox", question).await?;
        Ok(answer.pod_sandbox_id)
    }

    fn config(pod: &Pod) -> p::PodSandboxConfig {
        let host = p::NamespaceOption { network: p::NODE };
        p::PodSandboxConfig {
            metadata: Some(p::PodSandboxMetadata {
                name: pod.name.clone().unwrap_or_default(),
                uid: pod.uid.clone().unwrap_or_default(),
                namespace: pod.namespace.clone().unwrap_or_default(),
            }),
            linux: Some(p::LinuxPodSandboxConfig {
                cgroup_parent: format!("/hearth-cri-{}", std::process::id()),
                security_context: Some(p::LinuxSandboxSecurityContext {
                    namespace_options: Some(host),
                }),
            }),
        }
    }

    /// Starts a container in a pod; gives its id.
    pub(crate) async fn container(
        &self,
        sandbox: &str,
        name: &str,
        labels: HashMap<String, String>,
        annotations: HashMap<String, String>,
    ) -> Result<String> {
        let question = p::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(p::ContainerConfig {
                metadata: Some(p::ContainerMetadata {
                    name: name.to_owned(),
                }),
                image: Some(p::ImageSpec {
                    image: IMAGE.to_owned(),
                }),
                labels,
                annotations,
            }),
            sandbox_config: Some(Self::config(&Pod::default())),
        };
        let answer: p::CreateContainerResponse = self.call("CreateContainer", question).await?;
        let id = answer.container_id;
        let question = p::StartContainerRequest {
            container_id: id.clone(),
        };
        let _: p::Empty = self.call("StartContainer", question).await?;
        Ok(id)
    }

    /// Stops and removes every pod, then containerd itself.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pods: p::ListPodSandboxResponse = self.call("ListPodSandbox", p::Empty {}).await?;
        for pod in pods.items {
            let question = p::PodSandboxId {
                pod_sandbox_id: pod.id,
            };
            let _: p::Empty = self.call("StopPodSandbox", question.clone()).await?;
            let _: p::Empty = self.call("RemovePodSandbox", question).await?;
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    async fn answers(&self) -> Result<()> {
        for _ in 0..100 {
            if self
                .call::<_, p::Empty>("ListPodSandbox", p::Empty {})
                .await
                .is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        anyhow::bail!("containerd does not answer after 10 s; its log:\n{log}")
    }

    /// Makes an image of the static busybox and imports it.
    fn import(&self) -> Result<()> {
        let folder = self.folder.path();
        let image = folder.join("image");
        fs::create_dir_all(image.join("layer/bin"))?;
        fs::copy("/bin/busybox", image.join("layer/bin/busybox"))
            .context("`/bin/busybox` is missing: apt-get install busybox-static")?;
        run(Command::new("tar")
            .arg("-cf")
            .arg(image.join("layer.tar"))
            .arg("-C")
            .arg(image.join("layer"))
            .arg("bin"))?;
        let sum = Command::new("sha256sum")
            .arg(image.join("layer.tar"))
            .output()?;
        let sum = String::from_utf8(sum.stdout)?;
        let sum = sum.split_whitespace().next().context("a digest")?;
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["/bin/busybox", "sleep", "1000"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        let manifest = serde_json::json!([{
            "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"],
        }]);
        fs::write(image.join("config.json"), config.to_string())?;
        fs::write(image.join("manifest.json"), manifest.to_string())?;
        let archive = folder.join("image.tar");
        run(Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&image)
            .args(["config.json", "manifest.json", "layer.tar"]))?;
        run(Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args([
                "--namespace",
                "k8s.io",
                "images",
                "import",
                "--snapshotter",
                "native",
            ])
            .arg(&archive))
    }

    async fn call<Q, A>(&self, call: &str, question: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{call}"))?;
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = client
            .unary(tonic::Request::new(question), path, codec)
            .await;
        Ok(answer.with_context(|| call.to_owned())?.into_inner())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // After a failure the pods' processes are still there: those of this folder only.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let controllers = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        let own = format!("hearth-cri-{}", std::process::id());
        let hierarchies = controllers
            .map(|entry| entry.path())
            .chain(["/sys/fs/cgroup".into()]);
        for parent in hierarchies.map(|hierarchy| hierarchy.join(&own)) {
            remove(&parent);
        }
    }
}

/// Ends what runs in a cgroup, and removes it.
fn remove(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let procs = fs::read_to_string(parent.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let _ = fs::remove_dir(parent);
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}
