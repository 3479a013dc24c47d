//! In-place changes to MP4 fragments.
//!
//! [`retime`] sets a fragment's time, to play a clip in a loop; [`mend_sound`] closes gaps that a
//! recorder leaves between audio fragments. Both change a few bytes in existing fields, so no size
//! changes. Pure, with checked arithmetic, for one fragment at a time.

use super::{
    MediaError,
    boxes::{box_size, children, find, kind},
    u32_at,
};

/// If the last sample of an audio run is shorter than the one before it, gives it the same
/// duration.
///
/// Chromium's recorder (observed in 156) writes about a third of the real duration. A player then
/// finds the next fragment's audio more than twice that duration away, takes this as a gap, and
/// also drops *video* until its next keyframe (Media Source Extensions, coded frame processing), so
/// that only one frame of each group is shown.
///
/// # Errors
/// The fragment is invalid.
pub fn mend_sound(moof: &mut [u8], is_video: impl Fn(u32) -> bool) -> Result<(), MediaError> {
    let mut changes = Vec::new();
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
                changes.push((trun_at + at, duration));
            }
        }
    }
    for (at, duration) in changes {
        if let Some(place) = moof.get_mut(at..at + 4) {
            place.copy_from_slice(&duration.to_be_bytes());
        }
    }
    Ok(())
}

/// The offset of a `trun`'s last duration, and the duration before it, if that is longer.
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

/// The offset of `part` in `whole`.
fn offset_of(part: &[u8], whole: &[u8]) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)
}

/// Sets the decode time and the sequence number of a fragment with one track (starting with
/// `moof`).
///
/// # Errors
/// The fragment is invalid, has several tracks, or the time doesn't fit its 32-bit field.
pub fn retime(fragment: &mut [u8], time: u64, number: u32) -> Result<(), MediaError> {
    let cut = MediaError::Malformed("the fragment has not exactly one decode time");
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
