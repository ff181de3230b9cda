use super::*;

const LIMITS: HeldLimits = HeldLimits { requests: 2, bytes: 100 };

#[test]
fn a_worker_holds_no_more_requests_than_it_may() {
    let totals = Rc::default();
    let first = HeldShare::of_request(&totals, LIMITS).unwrap();
    let _second = HeldShare::of_request(&totals, LIMITS).unwrap();
    assert_eq!(HeldShare::of_request(&totals, LIMITS).unwrap_err(), Overloaded);

    drop(first);
    assert!(HeldShare::of_request(&totals, LIMITS).is_ok());
}

#[test]
fn what_goes_on_is_counted_by_its_bytes_alone() {
    let totals = Rc::default();
    let mut shares: Vec<_> = (0..10).map(|_| HeldShare::of_parts(&totals, LIMITS)).collect();
    for share in &mut shares {
        share.set_bytes(10).unwrap();
    }
    assert_eq!(shares[0].set_bytes(11), Err(Overloaded));
    assert!(HeldShare::of_request(&totals, LIMITS).is_ok());
}

#[test]
fn a_share_that_can_not_grow_stays_as_it_was() {
    let totals = Rc::default();
    let mut large = HeldShare::of_request(&totals, LIMITS).unwrap();
    let mut small = HeldShare::of_request(&totals, LIMITS).unwrap();
    large.set_bytes(90).unwrap();
    small.set_bytes(10).unwrap();
    for too_many in [11, usize::MAX] {
        assert_eq!(small.set_bytes(too_many), Err(Overloaded), "{too_many}");
        assert_eq!(totals.bytes.get(), 100);
    }
    large.set_bytes(80).unwrap();
    small.set_bytes(20).unwrap();

    drop((large, small));
    assert_eq!((totals.requests.get(), totals.bytes.get()), (0, 0));
}

#[test]
fn under_a_smaller_bound_a_share_may_still_shrink() {
    let totals = Rc::default();
    let mut before = HeldShare::of_parts(&totals, LIMITS);
    before.set_bytes(100).unwrap();
    let mut after = HeldShare::of_parts(&totals, HeldLimits { bytes: 10, ..LIMITS });
    assert_eq!(after.set_bytes(1), Err(Overloaded));
    before.set_bytes(99).unwrap();
    before.set_bytes(5).unwrap();
    after.set_bytes(5).unwrap();
}

#[test]
fn who_came_first_is_due_first() {
    let mut queue = HeldQueue::default();
    let requests: Vec<_> = (0..5_u64).map(Rc::new).collect();
    for (context, request) in (1..).zip(&requests) {
        queue.push(context, request);
    }
    let due = |queue: &mut HeldQueue<u64>, now| queue.pop_due(|deadline| *deadline <= now).map(|(context, _)| context);
    assert_eq!(due(&mut queue, 1), Some(1));
    assert_eq!(due(&mut queue, 1), Some(2));
    assert_eq!(due(&mut queue, 1), None);
    assert_eq!(due(&mut queue, 9), Some(3));
}

#[test]
fn requests_that_ended_are_passed_over_and_do_not_pile_up() {
    let mut queue = HeldQueue::default();
    let oldest = Rc::new(0);
    queue.push(0, &oldest);
    for context in 1..100_000 {
        queue.push(context, &Rc::new(1));
        assert!(queue.len() < 100, "{} entries for one request", queue.len());
    }
    drop(oldest);
    let last = Rc::new(2);
    queue.push(7, &last);
    assert_eq!(queue.pop_due(|_| true), Some((7, last)));
    assert!(queue.is_empty());
}
