//! A server on a port of its own, stopped when dropped.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use prefixd::api::{self, ApiSettings, ApiState, ServedModel};
use prefixd::prompt::SamplingDefaults;
use prefixd::scheduler::{Handle, SchedulerOptions, SchedulerThread, Status};
use prefixd_cache::{CacheOptions, DiskOptions};
use prefixd_engine::Engine;
use prefixd_engine::sim::SimEngine;

use super::echo::EchoEngine;
use super::model;

pub struct Setup {
    pub options: SchedulerOptions,
    pub settings: ApiSettings,
    pub template: Option<&'static str>,
    /// The token that ends an answer.
    pub stop: &'static str,
    pub cache: bool,
    pub resident_bytes: u64,
    /// Where blocks are kept, if on disk.
    pub dir: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        let options = SchedulerOptions { block_tokens: 16, ..SchedulerOptions::default() };
        let settings = ApiSettings {
            keepalive: None,
            workers: 1,
            shutdown: Duration::from_secs(1),
            ..ApiSettings::default()
        };
        let template = Some(model::TEMPLATE);
        let stop = "<|end|>";
        Self { options, settings, template, stop, cache: false, resident_bytes: 1 << 30, dir: None }
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub scheduler: Handle,
    stop: ServerHandle,
    thread: Option<JoinHandle<()>>,
    engine: Option<SchedulerThread>,
}

impl Setup {
    pub fn echo(self) -> Server {
        self.start(EchoEngine::new())
    }

    pub fn sim(self) -> Server {
        self.start(SimEngine::new(model::VOCAB, 100_000, 64))
    }

    pub fn start<E: Engine + Send + 'static>(self, engine: E) -> Server {
        let (cache, resident_bytes) = (self.cache, self.resident_bytes);
        let disk = self.dir.map(|dir| DiskOptions {
            dir,
            budget_bytes: 1 << 30,
            free_floor_bytes: 0,
            write_queue_bytes: 1 << 26,
            readers: 2,
        });
        let block_tokens = self.options.block_tokens;
        let engine = SchedulerThread::spawn(
            self.options,
            move |_| Ok(engine),
            move |info| {
                cache.then_some(CacheOptions {
                    fingerprint: info.fingerprint,
                    block_tokens,
                    resident_bytes,
                    disk,
                })
            },
        )
        .unwrap();
        let scheduler = engine.handle().clone();
        let model = ServedModel {
            names: vec!["maker/model".into(), "alias".into()],
            created: 1_700_000_000,
            text: model::text(self.template, self.stop),
            defaults: SamplingDefaults::default(),
        };
        let state = ApiState::new(model, scheduler.clone(), self.settings);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = api::server(state, listener).unwrap();
                tell.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        Server {
            address,
            scheduler,
            stop: started.recv().unwrap(),
            thread: Some(thread),
            engine: Some(engine),
        }
    }
}

impl Server {
    /// Looks at the scheduler until it is as wanted; `between` goes on with the test meanwhile.
    pub fn eventually(&self, what: &str, mut between: impl FnMut(), wanted: impl Fn(&Status) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.scheduler.status();
            if wanted(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "{what} did not happen: {status:?}");
            between();
            std::thread::yield_now();
        }
    }
}

impl Server {
    /// For tests that kill the scheduler on purpose.
    pub fn forget_failure(mut self) {
        assert!(self.engine.take().map(SchedulerThread::join).unwrap().is_err());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.scheduler.drain(Duration::ZERO);
        // The stop is sent when called; nothing has to wait for it but the join below.
        drop(self.stop.stop(false));
        let served = self.thread.take().map(JoinHandle::join);
        let computed = self.engine.take().map(SchedulerThread::join);
        if !std::thread::panicking() {
            served.unwrap().unwrap();
            computed.transpose().unwrap();
        }
    }
}
