//! The names of AWS's services in host names that differ from their signing names.
//!
//! Sources: botocore's endpoint rule sets, operation host prefixes and `endpoints.json`, of the current release and of older
//! ones, against which `tests/aws_endpoints.rs` checks every line that they cover; for the rest the service's page in the AWS documentation.
//! Tables that are searched are sorted.

/// A DNS suffix of AWS, and the properties of hosts below it.
pub(super) struct Suffix {
    pub name: &'static str,
    /// The region of the partition's global services.
    pub global_region: &'static str,
    /// The region of its IAM, which differs in China.
    pub iam_region: &'static str,
    /// `true` if a single label before the region is a service's name. Below `on.aws` it may be anything.
    pub names_services: bool,
}

const fn suffix(name: &'static str, global_region: &'static str) -> Suffix {
    Suffix { name, global_region, iam_region: global_region, names_services: true }
}

const fn china(name: &'static str) -> Suffix {
    Suffix { iam_region: "cn-north-1", ..suffix(name, "cn-northwest-1") }
}

const fn resources(suffix: Suffix) -> Suffix {
    Suffix { names_services: false, ..suffix }
}

/// botocore's `partitions.json` (`dnsSuffix`, `dualStackDnsSuffix`), and the suffixes of resources. GovCloud shares those of
/// the commercial partition and is recognized by its regions.
pub(super) const SUFFIXES: &[Suffix] = &[
    suffix("amazonaws.com", "us-east-1"),
    suffix("api.aws", "us-east-1"),
    resources(suffix("on.aws", "us-east-1")),
    china("amazonaws.com.cn"),
    china("api.amazonwebservices.com.cn"),
    resources(china("on.amazonwebservices.com.cn")),
    suffix("amazonaws.eu", "eusc-de-east-1"),
    suffix("api.amazonwebservices.eu", "eusc-de-east-1"),
    suffix("c2s.ic.gov", "us-iso-east-1"),
    suffix("api.aws.ic.gov", "us-iso-east-1"),
    suffix("sc2s.sgov.gov", "us-isob-east-1"),
    suffix("api.aws.scloud", "us-isob-east-1"),
    suffix("cloud.adc-e.uk", "eu-isoe-west-1"),
    suffix("api.cloud-aws.adc-e.uk", "eu-isoe-west-1"),
    suffix("csp.hci.ic.gov", "us-isof-south-1"),
    suffix("api.aws.hci.ic.gov", "us-isof-south-1"),
];

/// The region of GovCloud's global services (`iam.us-gov.amazonaws.com`).
pub(super) const GOVCLOUD_GLOBAL_REGION: &str = "us-gov-west-1";

/// Names before the region, whole: `api.ecr.eu-west-1.amazonaws.com` → `ecr`. A single label that is not here
/// is its own signing name.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("a2i-runtime.sagemaker", "sagemaker"),
    ("account-access-runtime", "account-access"),
    ("acm-acme", "acm"),
    ("admin.wickr", "wickr"),
    ("agent-registry-control", "agent-registry"),
    ("agreement-marketplace", "aws-marketplace"),
    ("analytics-omics", "omics"),
    ("aos", "es"),
    ("api-fips.sagemaker", "sagemaker"),
    ("api-fulfill.dataexchange", "dataexchange"),
    ("api-sagemaker", "sagemaker"),
    ("api.airflow", "airflow"),
    ("api.detective", "detective"),
    ("api.ecr", "ecr"),
    ("api.ecr-public", "ecr-public"),
    ("api.elastic-inference", "elastic-inference"),
    ("api.fleethub.iot", "iotfleethub"),
    ("api.iot-tunneling", "IoTSecuredTunneling"),
    ("api.iotdeviceadvisor", "iotdeviceadvisor"),
    ("api.iotmanagedintegrations", "iotmanagedintegrations"),
    ("api.iotsitewise", "iotsitewise"),
    ("api.iottwinmaker", "iottwinmaker"),
    ("api.iotwireless", "iotwireless"),
    ("api.mediatailor", "mediatailor"),
    ("api.pricing", "pricing"),
    ("api.sagemaker", "sagemaker"),
    ("api.thinclient", "thinclient"),
    ("api.tunneling.iot", "IoTSecuredTunneling"),
    ("appconfigdata", "appconfig"),
    ("appstream2", "appstream"),
    ("aps-workspaces", "aps"),
    ("arc-recovery-control-config", "route53-recovery-control-config"),
    ("arc-region-switch-control-plane", "arc-region-switch"),
    ("backupstorage", "backup-storage"),
    ("bedrock-agent", "bedrock"),
    ("bedrock-agent-runtime", "bedrock"),
    ("bedrock-agentcore-control", "bedrock-agentcore"),
    ("bedrock-data-automation", "bedrock"),
    ("bedrock-data-automation-runtime", "bedrock"),
    ("bedrock-runtime", "bedrock"),
    ("cassandra-streams", "cassandra"),
    ("catalog-marketplace", "aws-marketplace"),
    ("catalog.marketplace", "aws-marketplace"),
    ("cloudhsmv2", "cloudhsm"),
    ("cloudsearchdomain", "cloudsearch"),
    ("cloudwatch-omni", "cloudwatch"),
    ("cn.transcribe", "transcribe"),
    ("contact-lens", "connect"),
    ("control-storage-omics", "omics"),
    ("controlplane.payment-cryptography", "payment-cryptography"),
    ("cp.aidevops", "aidevops"),
    ("cp.geofencing.geo", "geo"),
    ("cp.maps.geo", "geo"),
    ("cp.metadata.geo", "geo"),
    ("cp.places.geo", "geo"),
    ("cp.routes.geo", "geo"),
    ("cp.tracking.geo", "geo"),
    ("data-ats.iot", "iotdata"),
    ("data-lakeformation", "lakeformation"),
    ("data-servicediscovery", "servicediscovery"),
    ("data-signer", "signer"),
    ("data.ats.iot", "iotdata"),
    ("data.iot", "iotdata"),
    ("data.iotevents", "ioteventsdata"),
    ("data.iotsitewise", "iotsitewise"),
    ("data.iottwinmaker", "iottwinmaker"),
    ("data.jobs.iot", "iot-jobs-data"),
    ("data.mediastore", "mediastore"),
    ("data.qapps", "qapps"),
    ("dataplane.evidently", "evidently"),
    ("dataplane.payment-cryptography", "payment-cryptography"),
    ("dataplane.rum", "rum"),
    ("datatransformation.healthlake", "healthlake"),
    ("deployment-marketplace", "aws-marketplace"),
    ("devices.iot1click", "iot1click"),
    ("discovery-datasync", "datasync"),
    ("discovery-marketplace", "aws-marketplace"),
    ("dp.aidevops", "aidevops"),
    ("edge.iotsitewise", "iotsitewise"),
    ("edge.sagemaker", "sagemaker"),
    ("efs", "elasticfilesystem"),
    ("email", "ses"),
    ("entitlement-marketplace", "aws-marketplace"),
    ("entitlement.marketplace", "aws-marketplace"),
    ("env.airflow", "airflow"),
    ("eventsv2", "events"),
    ("featurestore-runtime.sagemaker", "sagemaker"),
    ("forecastquery", "forecast"),
    ("geofencing.geo", "geo"),
    ("greengrass-ats.iot", "greengrass"),
    ("iam-toolbox", "iam"),
    ("identity-chime", "chime"),
    ("inferencerouter-runtime.sagemaker", "sagemaker"),
    ("ingest.timestream", "timestream"),
    ("iot", "iot"),
    ("ivsrealtime", "ivs"),
    ("job-runtime.sagemaker", "sagemaker"),
    ("kafka-api", "kafka"),
    ("kinesis-queues", "kinesis"),
    ("mail-manager", "ses"),
    ("management.deadline", "deadline"),
    ("media-pipelines-chime", "chime"),
    ("meetings-chime", "chime"),
    ("memory-db", "memorydb"),
    ("messaging-chime", "chime"),
    ("metadata.geo", "geo"),
    ("metering-marketplace", "aws-marketplace"),
    ("metering.marketplace", "aws-marketplace"),
    ("metrics-fips.sagemaker", "sagemaker"),
    ("metrics-sagemaker", "sagemaker"),
    ("metrics.sagemaker", "sagemaker"),
    ("migrationhub-config", "mgh"),
    ("mobile", "AWSMobileHubService"),
    ("model.iotsitewise", "iotsitewise"),
    ("models-fips.lex", "lex"),
    ("models-lex", "lex"),
    ("models-v2-lex", "lex"),
    ("models.lex", "lex"),
    ("monitor.iotsitewise", "iotsitewise"),
    ("mturk-requester-sandbox", "mturk-requester"),
    ("oidc", "sso-oauth"),
    ("ops.airflow", "airflow"),
    ("participant.connect", "execute-api"),
    ("partnercentral-prm", "partnercentral"),
    ("personalize-events", "personalize"),
    ("personalize-runtime", "personalize"),
    ("pinpoint", "mobiletargeting"),
    ("portal.sso", "awsssoportal"),
    ("projects.iot1click", "iot1click"),
    ("query-lakeformation", "lakeformation"),
    ("query.timestream", "timestream"),
    ("reporting-marketplace", "aws-marketplace"),
    ("runtime-fips.lex", "lex"),
    ("runtime-fips.sagemaker", "sagemaker"),
    ("runtime-lex", "lex"),
    ("runtime-medical-imaging", "medical-imaging"),
    ("runtime-sagemaker", "sagemaker"),
    ("runtime-v2-lex", "lex"),
    ("runtime.health-agent", "health-agent"),
    ("runtime.lex", "lex"),
    ("runtime.sagemaker", "sagemaker"),
    ("scheduling.deadline", "deadline"),
    ("search-dynamodb", "dynamodb"),
    ("servicecatalog-appregistry", "servicecatalog"),
    ("session.qldb", "qldb"),
    ("sms-voice.pinpoint", "sms-voice"),
    ("ssm-facade", "ssm"),
    ("storage-omics", "omics"),
    ("stream-logs", "logs"),
    ("streaming-logs", "logs"),
    ("streaming.health-agent", "health-agent"),
    ("streams-dynamodb", "dynamodb"),
    ("streams.dynamodb", "dynamodb"),
    ("subscribe.mediaconvert", "mediaconvert"),
    ("sync-states", "states"),
    ("tags-omics", "omics"),
    ("timestream-ingest", "timestream"),
    ("timestream-query", "timestream"),
    ("tracking.geo", "geo"),
    ("training-session-runtime.sagemaker", "sagemaker"),
    ("transcribestreaming", "transcribe"),
    ("verification.signer", "signer"),
    ("voice-chime", "chime"),
    ("wellarchitected-agent", "wellarchitected"),
    ("workflows-omics", "omics"),
];

/// Names that may have labels of a resource before them: `bucket.s3.eu-west-1.amazonaws.com` → `s3`.
pub(super) const FAMILIES: &[(&str, &str)] = &[
    ("aos", "es"),
    ("aoss", "aoss"),
    ("appsync-api", "appsync"),
    ("appsync-realtime-api", "appsync"),
    ("bedrock-agentcore", "bedrock-agentcore"),
    ("control-kinesis", "kinesis"),
    ("control-kinesis-queues", "kinesis"),
    ("data-kinesis", "kinesis"),
    ("data-kinesis-queues", "kinesis"),
    ("data.mediastore", "mediastore"),
    ("ddb", "dynamodb"),
    ("emr-serverless-services", "emr-serverless"),
    ("eventsv2", "events"),
    ("execute-api", "execute-api"),
    ("iot", "iotdata"),
    ("jobs.iot", "iot-jobs-data"),
    ("kinesisvideo", "kinesisvideo"),
    ("lambda-url", "lambda"),
    ("managedblockchain", "managedblockchain"),
    ("mediaconvert", "mediaconvert"),
    ("mediapackagev2", "mediapackagev2"),
    ("neptune-graph", "neptune-graph"),
    ("osm", "osm"),
    ("s3", "s3"),
    ("s3-accesspoint", "s3"),
    ("s3-control", "s3"),
    ("s3-object-lambda", "s3-object-lambda"),
    ("s3-outposts", "s3-outposts"),
    ("search-ddb", "dynamodb"),
    ("streams-ddb", "dynamodb"),
    ("timestream", "timestream"),
    ("vpc-lattice-svcs", "vpc-lattice-svcs"),
];

/// Names after the region: `search-a.eu-west-1.es.amazonaws.com` → `es`.
pub(super) const AFTER_REGION: &[(&str, &str)] = &[
    ("aoss", "aoss"),
    ("cloudsearch", "cloudsearch"),
    ("elasticmapreduce", "elasticmapreduce"),
    ("es", "es"),
    ("neptune", "neptune-db"),
    ("neptune-graph", "neptune-graph"),
    ("osis", "osis"),
    ("queue", "sqs"),
];

/// Names without a region; they are signed for the global region of their partition.
pub(super) const GLOBAL: &[(&str, &str)] = &[
    ("budgets", "budgets"),
    ("cloudfront", "cloudfront"),
    ("global.health", "health"),
    ("iam", "iam"),
    ("organizations", "organizations"),
    ("partnercentral-channel", "partnercentral-channel"),
    ("partnercentral-prm", "partnercentral"),
    ("queue", "sqs"),
    ("rds", "rds"),
    ("route53", "route53"),
    ("s3", "s3"),
    ("s3-external-1", "s3"),
    ("savingsplans", "savingsplans"),
    ("sdb", "sdb"),
    ("sts", "sts"),
    ("sustainability", "sustainability"),
    ("waf", "waf"),
];

/// Names of endpoints for all regions, which accept only SigV4A, with or without labels of a resource before them:
/// `m1.mrap.accesspoint.s3-global.amazonaws.com` → `s3`.
pub(super) const MULTI_REGION: &[(&str, &str)] = &[
    ("accesspoint.s3-global", "s3"),
    ("cloudfront-kvs", "cloudfront-keyvaluestore"),
    ("endpoint.events", "events"),
    ("endpoints.email", "ses"),
];

/// Names from which nothing can be inferred, with or without labels before them.
pub(super) const AMBIGUOUS: &[&str] = &[
    // Certificates, access tokens and bearer tokens, not signatures.
    "credentials.iot",
    "scim",
    "tunneling.iot",
    // SMTP, whose passwords are made from a signature.
    "email-smtp",
    // Git, whose passwords contain a signature over less than a request.
    "git-codecommit",
    "inbound-smtp",
    // An older and a newer service share the host; the path decides (`geo` or `geo-maps`, ...).
    "maps.geo",
    "places.geo",
    "routes.geo",
    // Signed for us-east-1, regardless of the host's region.
    "api.sustainability",
    // A website has no signed requests.
    "s3-website",
];
