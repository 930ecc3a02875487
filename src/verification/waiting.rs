//! Macs that wait to be woken: so many and no more, the most urgent first, each once.

use std::collections::{HashMap, VecDeque};

use super::Priority;
use crate::ids::DeviceId;

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
    /// In which lane a Mac waits, and whether somebody asked. An entry of a lane that is not the
    /// Mac's any more is passed over.
    waiting: HashMap<DeviceId, (usize, bool)>,
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

    /// Puts a Mac in, or moves one that waits to a more urgent place. False when there is no room.
    pub fn put(&mut self, device_id: &DeviceId, priority: Priority, asked: bool) -> bool {
        let lane = lane(priority);
        if let Some((known, was_asked)) = self.waiting.get_mut(device_id) {
            *was_asked |= asked;
            if lane < *known {
                *known = lane;
                self.lanes[lane].push_back(device_id.clone());
            }
            return true;
        }
        if self.room() == 0 {
            return false;
        }
        self.waiting.insert(device_id.clone(), (lane, asked));
        self.lanes[lane].push_back(device_id.clone());
        true
    }

    /// The Mac to wake next.
    pub fn take(&mut self) -> Option<Waiting> {
        for (lane, macs) in self.lanes.iter_mut().enumerate() {
            while let Some(device_id) = macs.pop_front() {
                if let Some((known, asked)) = self.waiting.get(&device_id).copied()
                    && known == lane
                {
                    self.waiting.remove(&device_id);
                    return Some(Waiting { device_id, asked });
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
    use crate::time::Timestamp;

    fn mac(number: u64) -> DeviceId {
        DeviceId::new(Timestamp::from_millis(0), &SeededEntropy::new(number))
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
            assert!(queue.put(&mac(number), priority, false));
        }
        assert_eq!(order(&mut queue), [4, 2, 5, 1, 3].map(mac));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_mac_waits_once_in_the_most_urgent_place_it_was_given() {
        let mut queue = Queue::new(10);
        queue.put(&mac(1), Priority::Refresh, false);
        queue.put(&mac(2), Priority::Refresh, false);
        queue.put(&mac(2), Priority::First, true);
        queue.put(&mac(2), Priority::Refresh, false);
        assert_eq!(queue.len(), 2);
        let first = queue.take().expect("a Mac");
        assert_eq!((first.device_id, first.asked), (mac(2), true));
        assert_eq!(order(&mut queue), [mac(1)]);
        // It may come again.
        queue.put(&mac(2), Priority::Refresh, false);
        assert_eq!(order(&mut queue), [mac(2)]);
    }

    #[test]
    fn a_full_queue_takes_nobody_else() {
        let mut queue = Queue::new(2);
        assert!(queue.put(&mac(1), Priority::Refresh, false));
        assert!(queue.put(&mac(2), Priority::Refresh, false));
        assert!(!queue.put(&mac(3), Priority::First, true));
        // Who waits already may become more urgent.
        assert!(queue.put(&mac(1), Priority::First, false));
        assert_eq!((queue.len(), queue.room()), (2, 0));
        queue.take();
        assert!(queue.put(&mac(3), Priority::First, true));
        assert_eq!(order(&mut queue), [3, 2].map(mac));
    }
}
