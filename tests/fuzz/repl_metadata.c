/* A replPropertyMetaData value as a server may send it. */
#include "agent/directory/repl_metadata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct replication_record record;
	enum status status = repl_metadata_find(bytes_of(data, size), ATTID_UNICODE_PWD, &record);
	if (status != STATUS_OK && record.known) {
		abort();
	}
	return 0;
}
