//! Changes to fragments of MP4, in place.
//!
//! [`retime`] moves a fragment in time, so that a clip goes round; [`mend_sound`] closes holes that a
//! recorder leaves between fragments. Both find their few bytes by the boxes' own structure and
//! write nothing else: no size changes. Pure, checked, for one fragment at a time.

use super::{
    MediaError,
    boxes::{box_size, children, find, kind},
    u32_at,
};

/// Gives the last sample of each run of sound the duration of the one before it, where it is shorter.
///
/// Chromium's recorder (seen in 156) writes about a third of it. A player then finds the next
/// fragment's sound more than twice that duration away, takes this for a hole, and drops the
/// *picture* too until its next keyframe (Media Source Extensions, coded frame processing): of each
/// group one frame is seen.
///
/// # Errors
/// The fragment is damaged.
pub fn mend_sound(moof: &mut [u8], is_video: impl Fn(u32) -> bool) -> Result<(), MediaError> {
    let mut mended = Vec::new();
    for traf in children(moof) {
        let traf = traf?;
        if kind(traf) != b"traf" {
            continue;
        }
        let Some(head) = find(traf, b"tfhd")? else { continue };
        let Some(id) = u32_at(head, 12) else { continue };
        if is_video(id) {
            continue;
        }
        for trun in children(traf) {
            let trun = trun?;
            if kind(trun) == b"trun"
                && let Some((at, duration)) = short_last_sample(trun)
                && let Some(trun_at) = offset_of(trun, moof)
            {
                mended.push((trun_at + at, duration));
            }
        }
    }
    for (at, duration) in mended {
        if let Some(place) = moof.get_mut(at..at + 4) {
            place.copy_from_slice(&duration.to_be_bytes());
        }
    }
    Ok(())
}

/// Where a `trun`'s last duration stands, and the one before it, if that is longer.
fn short_last_sample(trun: &[u8]) -> Option<(usize, u32)> {
    let has = u32_at(trun, 8)?;
    let last = usize::try_from(u32_at(trun, 12)?).ok()?.checked_sub(1)?;
    if has & 0x100 == 0 {
        return None;
    }
    let rows = 16 + 4 * usize::try_from((has & 0x5).count_ones()).ok()?;
    let row = 4 * usize::try_from((has & 0xf00).count_ones()).ok()?;
    let at = |index: usize| index.checked_mul(row)?.checked_add(rows);
    let (last_at, before) = (at(last)?, u32_at(trun, at(last.checked_sub(1)?)?)?);
    (u32_at(trun, last_at)? < before).then_some((last_at, before))
}

/// Where a part of some bytes begins in them.
fn offset_of(part: &[u8], whole: &[u8]) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)
}

/// Sets the time and the number of a fragment with one track (`moof` first): so a clip plays on.
///
/// # Errors
/// The fragment is damaged, has several tracks, or the time doesn't fit its 32 bits.
pub fn retime(fragment: &mut [u8], time: u64, number: u32) -> Result<(), MediaError> {
    let cut = MediaError::Malformed("the fragment has no single time");
    let moof_size = box_size(fragment)?.ok_or(cut)?;
    let moof = fragment.get(..moof_size).ok_or(cut)?;
    let place = |part: &[u8]| offset_of(part, moof);
    let parts: Vec<_> = children(moof).collect::<Result<_, _>>()?;
    let mut fragments = parts.iter().filter(|part| kind(part) == b"traf");
    let (Some(traf), None) = (fragments.next(), fragments.next()) else { return Err(cut) };
    let tfdt = find(traf, b"tfdt")?.ok_or(cut)?;
    let wide = tfdt.get(8) == Some(&1);
    let tfdt_at = place(tfdt).ok_or(cut)? + 12;
    let mfhd_at = match find(moof, b"mfhd")? {
        Some(mfhd) => Some(place(mfhd).ok_or(cut)? + 12),
        None => None,
    };
    let mut put = |at: usize, bytes: &[u8]| -> Result<(), MediaError> {
        fragment.get_mut(at..at + bytes.len()).ok_or(cut)?.copy_from_slice(bytes);
        Ok(())
    };
    if wide {
        put(tfdt_at, &time.to_be_bytes())?;
    } else {
        let time = u32::try_from(time).map_err(|_| MediaError::Malformed("a time beyond 32 bits"))?;
        put(tfdt_at, &time.to_be_bytes())?;
    }
    match mfhd_at {
        Some(at) => put(at, &number.to_be_bytes()),
        None => Ok(()),
    }
}
