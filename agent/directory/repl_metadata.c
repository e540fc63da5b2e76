#include "agent/directory/repl_metadata.h"

#include <string.h>

#include "agent/directory/ad_time.h"

enum { HEADER_SIZE = 16, RECORD_SIZE = 48, VERSION = 1 };

static uint32_t read_u32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t read_u64(const uint8_t *at)
{
	return (uint64_t)read_u32(at + 4) << 32 | read_u32(at);
}

/* u32 attid, u32 version, u64 seconds since 1601, 16 invocationId, u64 originating USN, u64 local USN */
static void read_record(const uint8_t *at, struct replication_record *ret_record)
{
	ret_record->known = true;
	ret_record->version = read_u32(at + 4);
	ret_record->time_s = ad_time_from_1601(read_u64(at + 8));
	memcpy(ret_record->originator, at + 16, 16);
	ret_record->originating_usn = read_u64(at + 32);
}

enum status repl_metadata_find(struct bytes value, uint32_t attid, struct replication_record *ret_record)
{
	*ret_record = (struct replication_record){ 0 };
	if (value.size < HEADER_SIZE || (value.size - HEADER_SIZE) % RECORD_SIZE != 0 || read_u32(value.data) != VERSION ||
	    read_u32(value.data + 8) != (value.size - HEADER_SIZE) / RECORD_SIZE) {
		return STATUS_LOCAL_INPUT;
	}
	for (const uint8_t *at = value.data + HEADER_SIZE; at < value.data + value.size; at += RECORD_SIZE) {
		if (read_u32(at) == attid) {
			read_record(at, ret_record);
			return STATUS_OK;
		}
	}
	ret_record->absent = true;
	return STATUS_OK;
}
