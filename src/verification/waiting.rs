//! Macs that wait to be woken: so many and no more, the most urgent first, each once.

use std::collections::{HashMap, VecDeque};

use super::Priority;
use crate::ids::DeviceId;
use crate::time::Timestamp;

/// A Mac to be woken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub device_id: DeviceId,
    /// Somebody wants it, who is not made to wait as long as the sweep.
    pub asked: bool,
}

/// The queue. Among Macs of one priority, whoever came first is first.
#[derive(Debug)]
pub struct Queue {
    room: usize,
    lanes: [VecDeque<DeviceId>; 3],
    /// An entry of a lane that is not the Mac's any more is passed over.
    waiting: HashMap<DeviceId, Place>,
}

/// Where a Mac waits, whether somebody asked, and since when.
#[derive(Debug, Clone, Copy)]
struct Place {
    lane: usize,
    asked: bool,
    since: Timestamp,
}

impl Queue {
    /// An empty queue of at most `room` Macs.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            lanes: Default::default(),
            waiting: HashMap::new(),
        }
    }

    /// How many Macs wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether this Mac does.
    pub fn awaits(&self, device_id: &DeviceId) -> bool {
        self.waiting.contains_key(device_id)
    }

    /// How many more may come.
    pub fn room(&self) -> usize {
        self.room.saturating_sub(self.waiting.len())
    }

    /// Since when the one waits that waits longest.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.waiting.values().map(|place| place.since).min()
    }

    /// Puts a Mac in, or moves one that waits to a more urgent place. False when there is no room.
    pub fn put(
        &mut self,
        device_id: &DeviceId,
        priority: Priority,
        asked: bool,
        now: Timestamp,
    ) -> bool {
        let lane = lane(priority);
        if let Some(known) = self.waiting.get_mut(device_id) {
            known.asked |= asked;
            if lane < known.lane {
                known.lane = lane;
                self.lanes[lane].push_back(device_id.clone());
            }
            return true;
        }
        if self.room() == 0 {
            return false;
        }
        let place = Place {
            lane,
            asked,
            since: now,
        };
        self.waiting.insert(device_id.clone(), place);
        self.lanes[lane].push_back(device_id.clone());
        true
    }

    /// The Mac to wake next.
    pub fn take(&mut self) -> Option<Waiting> {
        for (lane, macs) in self.lanes.iter_mut().enumerate() {
            while let Some(device_id) = macs.pop_front() {
                if let Some(known) = self.waiting.get(&device_id).copied()
                    && known.lane == lane
                {
                    self.waiting.remove(&device_id);
                    return Some(Waiting {
                        device_id,
                        asked: known.asked,
                    });
                }
            }
        }
        None
    }
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::First => 0,
        Priority::Expired => 1,
        Priority::Refresh => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn mac(number: u64) -> DeviceId {
        DeviceId::new(Timestamp::from_millis(0), &SeededEntropy::new(number))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(std::time::Duration::from_secs(seconds))
    }

    fn order(queue: &mut Queue) -> Vec<DeviceId> {
        std::iter::from_fn(|| queue.take())
            .map(|next| next.device_id)
            .collect()
    }

    #[test]
    fn the_most_urgent_first_and_among_equals_who_came_first() {
        let mut queue = Queue::new(10);
        for (number, priority) in [
            (1, Priority::Refresh),
            (2, Priority::Expired),
            (3, Priority::Refresh),
            (4, Priority::First),
            (5, Priority::Expired),
        ] {
            assert!(queue.put(&mac(number), priority, false, at(0)));
        }
        assert_eq!(order(&mut queue), [4, 2, 5, 1, 3].map(mac));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_mac_waits_once_in_the_most_urgent_place_it_was_given() {
        let mut queue = Queue::new(10);
        queue.put(&mac(1), Priority::Refresh, false, at(0));
        queue.put(&mac(2), Priority::Refresh, false, at(0));
        queue.put(&mac(2), Priority::First, true, at(0));
        queue.put(&mac(2), Priority::Refresh, false, at(0));
        assert_eq!(queue.len(), 2);
        let first = queue.take().expect("a Mac");
        assert_eq!((first.device_id, first.asked), (mac(2), true));
        assert_eq!(order(&mut queue), [mac(1)]);
        // It may come again.
        queue.put(&mac(2), Priority::Refresh, false, at(0));
        assert_eq!(order(&mut queue), [mac(2)]);
    }

    #[test]
    fn a_full_queue_takes_nobody_else() {
        let mut queue = Queue::new(2);
        assert!(queue.put(&mac(1), Priority::Refresh, false, at(0)));
        assert!(queue.put(&mac(2), Priority::Refresh, false, at(0)));
        assert!(!queue.put(&mac(3), Priority::First, true, at(0)));
        // Who waits already may become more urgent.
        assert!(queue.put(&mac(1), Priority::First, false, at(0)));
        assert_eq!((queue.len(), queue.room()), (2, 0));
        queue.take();
        assert!(queue.put(&mac(3), Priority::First, true, at(0)));
        assert_eq!(order(&mut queue), [3, 2].map(mac));
    }

    #[test]
    fn whoever_waits_longest_is_known() {
        let mut queue = Queue::new(3);
        assert_eq!(queue.oldest(), None);
        queue.put(&mac(1), Priority::Refresh, false, at(5));
        queue.put(&mac(2), Priority::First, false, at(7));
        // Whoever becomes more urgent has waited all the same.
        queue.put(&mac(1), Priority::Expired, true, at(9));
        assert_eq!(queue.oldest(), Some(at(5)));
        queue.take();
        assert_eq!(queue.oldest(), Some(at(5)));
        queue.take();
        assert_eq!(queue.oldest(), None);
    }
}
