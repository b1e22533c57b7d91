//! Memory for the tests: made, filled, compared. Every byte depends on its place and on a seed, 0 meaning zeros.

use nixl_connect::Descriptor;

use super::role::{Answer, mistake};

fn byte(place: u64, seed: u64) -> u8 {
    (place.wrapping_add(1).wrapping_mul(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// One descriptor for each of the sizes `64,32,1`; vectors and mapped memory in turn.
pub fn make(sizes: &str, seed: &str) -> Answer<Vec<Descriptor>> {
    let seed = seed.parse().map_err(mistake)?;
    let mut place = 0;
    let mut made = Vec::new();
    for size in sizes.split(',') {
        let size: usize = size.parse().map_err(mistake)?;
        let bytes = (place..).take(size).map(|place| byte(place, seed));
        place += size as u64;
        made.push(if made.len() % 2 == 0 {
            Descriptor::from_vec(bytes.collect())?
        } else {
            let mut descriptor = Descriptor::zeroed(size)?;
            let target = descriptor.bytes_mut().ok_or_else(|| mistake("new memory is in flight"))?;
            target.iter_mut().zip(bytes).for_each(|(target, byte)| *target = byte);
            descriptor
        });
    }
    Ok(made)
}

/// Says where the first byte is that is not the seed's.
pub fn compare<D: AsRef<Descriptor>>(descriptors: &[D], seed: &str) -> Answer {
    let seed = seed.parse().map_err(mistake)?;
    let mut place = 0;
    for (index, descriptor) in descriptors.iter().enumerate() {
        let bytes = descriptor.as_ref().bytes().ok_or_else(|| mistake("not our memory"))?;
        let wrong = (place..).zip(bytes).position(|(place, found)| *found != byte(place, seed));
        if let Some(wrong) = wrong {
            return Err(mistake(format!("descriptors[{index}] differs at {wrong}")));
        }
        place += bytes.len() as u64;
    }
    Ok("equal".to_owned())
}
