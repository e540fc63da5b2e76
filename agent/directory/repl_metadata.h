/* repl_metadata: one attribute's record in a replPropertyMetaData value (MS-ADTS 3.1.1.1.9; NDR form in MS-DRSR 5.162). Pure. */
#ifndef AGENT_DIRECTORY_REPL_METADATA_H
#define AGENT_DIRECTORY_REPL_METADATA_H

#include "agent/directory/directory.h"

enum { ATTID_UNICODE_PWD = 0x0009005A };

/* STATUS_LOCAL_INPUT where the value is malformed. An attribute that has no record gives STATUS_OK and ret_record->absent. */
enum status repl_metadata_find(struct bytes value, uint32_t attid, struct replication_record *ret_record) MUST_USE;

#endif
