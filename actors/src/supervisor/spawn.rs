//! How actors start.

use ractor::{Actor, ActorCell, ActorRef, SpawnErr};

/// Starts an actor, linked to `supervisor` where there is one.
///
/// # Errors
/// When it can't be started.
pub(crate) async fn spawn<A: Actor>(
    supervisor: Option<ActorCell>,
    actor: A,
    arguments: A::Arguments,
) -> Result<ActorRef<A::Msg>, SpawnErr> {
    let (actor, _) = match supervisor {
        Some(cell) => Actor::spawn_linked(None, actor, arguments, cell).await?,
        None => Actor::spawn(None, actor, arguments).await?,
    };
    Ok(actor)
}
