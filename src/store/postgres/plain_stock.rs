//! Up to where a device's stock is handed out without a look at what is left of it ([`super::claim_batch`],
//! [`super::claim_one`]).
//!
//! Prekeys leave a stock from its old end, or all at once; only a publish changes what is in it. So the boundary is drawn
//! once after each publish, by the first claim, and holds until the next. It must never be drawn without the lock on the
//! bundle's row, under which nobody publishes.

use sqlx::PgConnection;

use super::bundle::Place;
use crate::store::StoreError;

/// Draws the boundary so that `rest` prekeys lie behind it; in front of everything, if there are not more than that.
pub(super) async fn draw(connection: &mut PgConnection, place: Place, rest: i32) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE bundle SET plain_rest = $4, plain_upload = next_upload, plain_until = coalesce((
             SELECT upload FROM prekey WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL
             ORDER BY upload DESC OFFSET $4 - 1 LIMIT 1), 0)
         WHERE account = $1 AND protocol = $2 AND device = $3",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(rest)
    .execute(connection)
    .await?;
    Ok(())
}
