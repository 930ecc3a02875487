//! Tickets, identities, enrollments and steps.

use attestd::enrollment::Ticket;
use attestd::enrollment::ticket::Bounds;
use attestd::entropy::SeededEntropy;
use attestd::time::Timestamp;

use super::on_both;

const NOW: i64 = 1_790_000_000_000;

on_both! {
    async fn of_two_who_redeem_a_ticket_at_once_one_wins(db: Database) {
        let now = Timestamp::from_millis(NOW);
        let (ticket, _) = Ticket::issue(Bounds::default(), now, &SeededEntropy::new(1));
        let mut write = db.store.write().await.expect("begins");
        write.insert_ticket(&ticket).await.expect("is new");
        write.commit().await.expect("commits");

        let attempt = || {
            let (store, ticket_id) = (db.store.clone(), ticket.ticket_id.clone());
            tokio::spawn(async move {
                let mut write = store.write().await.expect("begins");
                let won = write.redeem(&ticket_id, now).await.expect("answers");
                write.commit().await.expect("commits");
                won
            })
        };
        let (one, other) = (attempt(), attempt());
        let wins = [one.await.expect("ends"), other.await.expect("ends")];
        assert_eq!(wins.iter().filter(|won| **won).count(), 1);
    }
}
