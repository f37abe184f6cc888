//! A host, made of its backends: the services and the engine over them, then the first look at the world.

use crate::catalog::Catalog;
use crate::catalog::records::Records;
use crate::clock::Clock;
use crate::error::Result;
use crate::freeze::Freezer;
use crate::host::{Host, schedules, upkeep};
use crate::locked_db::LockedDb;
use crate::model::Server;
use crate::op::step::StepHook;
use crate::op::{Engine, Key, take_up_all};
use crate::ops;
use crate::pool::Pool;
use crate::ramdisk::RamDisks;
use crate::rootfs::RootFs;
use crate::runtime::Runtime;
use crate::services::api_sockets::ApiSockets;
use crate::services::automatic::Automatic;
use crate::services::databases::Databases;
use crate::services::dirs::ContainerDirs;
use crate::services::exits::Exits;
use crate::services::freezing::Freezing;
use crate::services::identity::Identities;
use crate::services::limits::Limits;
use crate::services::peers::{Peers, Sending};
use crate::services::policies::Policies;
use crate::services::pool_watch::PoolWatch;
use crate::services::ramdisks::Ramdisks;
use crate::services::shares::Shares;
use crate::services::sizes::Sizes;
use crate::services::starter::Starter;
use crate::services::usage::Meters;
use crate::services::view::View;
use crate::services::wake::Wake;
use crate::settings::Settings;
use crate::share::ShareMount;
use crate::snapshot::SnapshotStore;
use crate::transfer::Transport;
use crate::world::{Parts, World};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that a host is made of.
pub(super) struct Assembly {
    pub catalog: Catalog,
    pub store: Arc<dyn SnapshotStore>,
    pub roots: Arc<dyn RootFs>,
    pub freezer: Arc<dyn Freezer>,
    pub runtime: Arc<dyn Runtime>,
    pub databases: Option<Arc<dyn LockedDb>>,
    pub ramdisks: Option<Arc<dyn RamDisks>>,
    pub shares: Arc<dyn ShareMount>,
    pub transport: Option<Arc<dyn Transport>>,
    pub clock: Arc<dyn Clock>,
    pub hook: Box<dyn StepHook>,
    pub server: Server,
    pub settings: Settings,
    pub boot: String,
    pub id_base: u32,
    /// Where the sockets of containers are; nothing: they have none.
    pub api_sockets: Option<PathBuf>,
    /// Its lock on the data directory is held as long as the host lives.
    pub pool: Option<Pool>,
}

/// Opens the host: catalog and world are reconciled, and the background work starts.
pub(super) fn open(parts: Assembly) -> Result<Host> {
    let runtime = Arc::clone(&parts.runtime);
    let host = assemble(parts)?;
    listen(&host, &*runtime);
    if host.0.catalog.is_read_only() {
        tracing::error!("{}; what is stored can be read, nothing can be changed", host.0.pool_watch.read_only_error());
    } else {
        host.reconcile()?;
        upkeep::start(&host)?;
        schedules::start(&host)?;
    }
    serve_databases(&host);
    host.0.pool_watch.start(host.0.upkeep.clone())?;
    Ok(host)
}

fn assemble(parts: Assembly) -> Result<Host> {
    let Assembly {
        catalog,
        store,
        roots,
        freezer,
        runtime,
        databases,
        ramdisks,
        shares,
        transport,
        clock,
        hook,
        server,
        settings,
        boot,
        id_base,
        api_sockets,
        pool,
    } = parts;
    let catalog = Arc::new(catalog);
    let records = Records { catalog: Arc::clone(&catalog), clock: Arc::clone(&clock) };
    let dirs = ContainerDirs { id_base };
    let pool_watch = Arc::new(PoolWatch::new(pool, Arc::clone(&store), records.clone(), server.id.clone()));
    let wake = Wake::new()?;
    let databases = Arc::new(Databases::new(databases, Arc::clone(&store), Arc::clone(&roots), records.clone(), dirs));
    let ramdisks = Arc::new(Ramdisks::new(ramdisks, dirs));
    let shares = Arc::new(Shares::new(shares, Arc::clone(&roots), Arc::clone(&runtime), Arc::clone(&databases), records.clone(), wake.clone()));
    let api_sockets = Arc::new(ApiSockets::new(api_sockets, dirs));
    let starter = Starter {
        api_sockets: Arc::clone(&api_sockets),
        store: Arc::clone(&store),
        roots: Arc::clone(&roots),
        runtime: Arc::clone(&runtime),
        databases: Arc::clone(&databases),
        ramdisks: Arc::clone(&ramdisks),
        shares: Arc::clone(&shares),
        dirs,
        host_network: settings.host_network,
        identities: Identities { parts: settings.new_identity.clone() },
        records: records.clone(),
    };
    let meters = Meters::new(Arc::clone(&store), Arc::clone(&runtime), Arc::clone(&ramdisks), records.clone());
    let sizes = Arc::new(Sizes::new(Arc::clone(&store), records.clone()));
    let policies = Arc::new(Policies::new(records.clone(), boot.clone())?);
    let user = catalog.user().clone();
    Ok(Host(World::new(Parts {
        limits: Limits::new(Arc::clone(&store), records.clone(), &settings),
        view: View { server: server.clone(), user },
        freezing: Freezing::new(Arc::clone(&freezer), Arc::clone(&databases), settings.freeze_timeout),
        freezer,
        runtime: Arc::clone(&runtime),
        databases,
        ramdisks,
        shares,
        api_sockets,
        starter,
        engine: Engine::new(records.clone(), hook),
        peers: Peers { transport, records: records.clone(), server: server.clone(), id_base, sending: Sending::default() },
        clock,
        catalog,
        server,
        settings,
        boot,
        id_base,
        exits: Exits::new(records),
        store,
        roots,
        meters,
        sizes,
        upkeep: wake,
        automatic: Automatic::default(),
        policies,
        pool_watch,
    })))
}

/// Follows what operations, locks and runs announce.
fn listen(host: &Host, runtime: &dyn Runtime) {
    let weak = host.0.downgrade();
    host.0.engine.on_recovered(move || {
        if let Some(world) = weak.upgrade()
            && let Err(e) = take_up_all(&world, &ops::all::ALL)
        {
            tracing::error!(error = %e, "cannot read the journal");
        }
    });
    let weak = host.0.downgrade();
    host.0.engine.locks.on_free(move |key| {
        let Some(inner) = weak.upgrade() else { return };
        match key {
            Key::Container(id) => {
                inner.exits.lock_freed(id);
                inner.policies.lock_freed(Some(id));
                inner.close_api_socket_if_stopped(id);
            }
            Key::Databases(_) => inner.policies.lock_freed(None),
            Key::Image(_) | Key::Project(_) | Key::Pool => {}
        }
    });
    let weak = host.0.downgrade();
    host.0.exits.on_noted(move |id, exit| {
        if let Some(world) = weak.upgrade() {
            ops::automatic::at_end(&world, id, exit);
        }
    });
    let weak = host.0.downgrade();
    runtime.set_oom_listener(Box::new(move |id| {
        if let Some(world) = weak.upgrade() {
            ops::automatic::at_oom(&world, id);
        }
    }));
    let weak = host.0.downgrade();
    runtime.set_exit_listener(Box::new(move |id, run, exit| {
        if let Some(inner) = weak.upgrade() {
            inner.exits.ended(id, run, exit, || inner.engine.locks.holder(&Key::Container(id.clone())).is_some());
            inner.close_api_socket_if_stopped(id);
        }
    }));
}

/// Of what serves databases anew nothing is mounted: now, and whenever it was started again.
fn serve_databases(host: &Host) {
    let Some(databases) = host.0.databases.backend() else { return };
    if databases.is_new_session() {
        host.0.remount_databases();
    }
    let weak = host.0.downgrade();
    databases.set_restart_listener(Box::new(move || {
        if let Some(inner) = weak.upgrade() {
            inner.remount_databases();
        }
    }));
}
