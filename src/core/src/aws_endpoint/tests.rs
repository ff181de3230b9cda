use proptest::prelude::*;

use super::*;

/// Checks a table with one line per host: host, signing name, region; `-` if nothing is inferred.
fn check(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (host, expected) = match fields[..] {
            [host, "-"] => (host, None),
            [host, signing_name, region] => (host, Some(Endpoint { signing_name, region })),
            _ => panic!("not a line of this table: {line}"),
        };
        assert_eq!(infer(host), expected, "{host}");
    }
}

#[test]
fn regional_services() {
    check(
        "
        sqs.eu-west-1.amazonaws.com                      sqs                     eu-west-1
        kms-fips.us-east-1.amazonaws.com                 kms                     us-east-1
        kms.eu-west-1.api.aws                            kms                     eu-west-1
        kms-fips.us-east-2.api.aws                       kms                     us-east-2
        fips.batch.us-west-2.amazonaws.com               batch                   us-west-2
        service-of-tomorrow.xy-newland-12.amazonaws.com  service-of-tomorrow     xy-newland-12
        dynamodb.cn-north-1.amazonaws.com.cn             dynamodb                cn-north-1
        sns.cn-north-1.api.amazonwebservices.com.cn      sns                     cn-north-1
        sts.us-gov-west-1.amazonaws.com                  sts                     us-gov-west-1
        sqs.us-iso-east-1.c2s.ic.gov                     sqs                     us-iso-east-1
        sqs.us-isob-east-1.sc2s.sgov.gov                 sqs                     us-isob-east-1
        sqs.eu-isoe-west-1.cloud.adc-e.uk                sqs                     eu-isoe-west-1
        sqs.us-isof-south-1.csp.hci.ic.gov               sqs                     us-isof-south-1
        sqs.eusc-de-east-1.amazonaws.eu                  sqs                     eusc-de-east-1
        email.eu-west-1.amazonaws.com                    ses                     eu-west-1
        monitoring.eu-west-1.amazonaws.com               monitoring              eu-west-1
        logs.eu-west-1.amazonaws.com                     logs                    eu-west-1
        streaming-logs.eu-west-1.amazonaws.com           logs                    eu-west-1
        stream-logs.eu-west-1.amazonaws.com              logs                    eu-west-1
        sync-states.eu-west-1.amazonaws.com              states                  eu-west-1
        api.ecr.eu-west-1.amazonaws.com                  ecr                     eu-west-1
        aps-workspaces.eu-west-1.amazonaws.com           aps                     eu-west-1
        bedrock-runtime.eu-west-1.amazonaws.com          bedrock                 eu-west-1
        bedrock-agent-runtime.eu-west-1.amazonaws.com    bedrock                 eu-west-1
        transcribestreaming.eu-west-1.amazonaws.com      transcribe              eu-west-1
        streams.dynamodb.eu-west-1.amazonaws.com         dynamodb                eu-west-1
        queue.amazonaws.com                              sqs                     us-east-1
        eu-west-1.queue.amazonaws.com                    sqs                     eu-west-1
        ",
    );
}

#[test]
fn resources_with_a_host_name_of_their_own() {
    check(
        "
        abc123.execute-api.eu-west-1.amazonaws.com                 execute-api       eu-west-1
        abc123-vpce-0a1b.execute-api.eu-west-1.amazonaws.com       execute-api       eu-west-1
        abc123.lambda-url.eu-west-1.on.aws                         lambda            eu-west-1
        svc-0a1b.7d67968.vpc-lattice-svcs.eu-west-1.on.aws         vpc-lattice-svcs  eu-west-1
        search-logs-xyz.eu-west-1.es.amazonaws.com                 es                eu-west-1
        search-logs-xyz.aos.eu-west-1.on.aws                       es                eu-west-1
        abc123.eu-west-1.aoss.amazonaws.com                        aoss              eu-west-1
        doc-movies-xyz.eu-west-1.cloudsearch.amazonaws.com         cloudsearch       eu-west-1
        db.cluster-xyz.eu-west-1.neptune.amazonaws.com             neptune-db        eu-west-1
        123456789012.ddb.eu-west-1.amazonaws.com                   dynamodb          eu-west-1
        a1b2-ats.iot.eu-west-1.amazonaws.com                       iotdata           eu-west-1
        a1b2.jobs.iot.eu-west-1.amazonaws.com                      iot-jobs-data     eu-west-1
        abc123.appsync-api.eu-west-1.amazonaws.com                 appsync           eu-west-1
        abc123.appsync-realtime-api.eu-west-1.amazonaws.com        appsync           eu-west-1
        ",
    );
}

#[test]
fn s3() {
    check(
        "
        s3.amazonaws.com                                               s3                us-east-1
        bucket.s3.amazonaws.com                                        s3                us-east-1
        s3.eu-west-1.amazonaws.com                                     s3                eu-west-1
        bucket.s3.eu-west-1.amazonaws.com                              s3                eu-west-1
        bucket.with.dots.s3.eu-west-1.amazonaws.com                    s3                eu-west-1
        old_bucket.s3.eu-west-1.amazonaws.com                          s3                eu-west-1
        eu-west-1.s3.amazonaws.com                                     s3                us-east-1
        bucket.s3.dualstack.eu-west-1.amazonaws.com                    s3                eu-west-1
        bucket.s3-fips.dualstack.us-east-1.amazonaws.com               s3                us-east-1
        s3-us-west-2.amazonaws.com                                     s3                us-west-2
        bucket.s3-us-west-2.amazonaws.com                              s3                us-west-2
        s3-fips-us-gov-west-1.amazonaws.com                            s3                us-gov-west-1
        s3-external-1.amazonaws.com                                    s3                us-east-1
        bucket.s3-external-1.amazonaws.com                             s3                us-east-1
        bucket.s3.cn-north-1.amazonaws.com.cn                          s3                cn-north-1
        point-123456789012.s3-accesspoint.eu-west-1.amazonaws.com      s3                eu-west-1
        point-123456789012.s3-accesspoint-fips.dualstack.us-east-1.amazonaws.com s3      us-east-1
        123456789012.s3-control.eu-west-1.amazonaws.com                s3                eu-west-1
        point-123456789012.s3-object-lambda.eu-west-1.amazonaws.com    s3-object-lambda  eu-west-1
        point-123456789012.op-1.s3-outposts.eu-west-1.amazonaws.com    s3-outposts       eu-west-1
        b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com   s3express         us-west-2
        s3express-control.us-west-2.amazonaws.com                      s3express         us-west-2
        bucket.s3-website-us-east-1.amazonaws.com                      -
        bucket.s3-website.eu-west-1.amazonaws.com                      -
        s3-website.eu-west-1.amazonaws.com                             -
        bucket.s3-accelerate.amazonaws.com                             -
        ",
    );
}

#[test]
fn the_control_api_of_s3_is_known_by_its_label() {
    for authority in [
        "s3-control.eu-west-1.amazonaws.com",
        "123456789012.s3-control.eu-west-1.amazonaws.com",
        "123456789012.S3-Control.EU-West-1.AmazonAWS.com",
        "123456789012.s3-control.eu-west-1.amazonaws.com.",
        "123456789012.s3-control.eu-west-1.amazonaws.com:443",
        "123456789012.s3-control.eu-west-1.amazonaws.com.:8443",
        "123456789012.s3-control-fips.dualstack.us-east-1.amazonaws.com",
        "123456789012.s3-control.cn-north-1.amazonaws.com.cn",
        "s3express-control.us-west-2.amazonaws.com",
        "s3express-control-fips.dualstack.us-east-1.amazonaws.com",
        "s3-outposts.us-west-2.amazonaws.com",
        "s3-outposts-fips.us-west-2.api.aws",
        "123456789012.control.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com",
        "control.vpce-1a2b-3c4d-us-east-1a.s3.us-east-1.vpce.amazonaws.com",
        "CONTROL.VPCE-1a2b-3c4d.S3.us-east-1.VPCE.amazonaws.com:443",
        "vpce-1a2b-3c4d.s3-outposts.us-east-1.vpce.amazonaws.com",
    ] {
        assert!(is_s3_control(authority.as_bytes()), "{authority}");
    }
}

#[test]
fn a_bucket_may_be_called_like_the_control_api_of_s3() {
    for authority in [
        "",
        ":",
        "s3-control",
        "s3.eu-west-1.amazonaws.com",
        "s3-control.s3.eu-west-1.amazonaws.com",
        "my-s3-control.s3.eu-west-1.amazonaws.com",
        "s3-control-logs.s3.eu-west-1.amazonaws.com",
        "a.s3-control.s3.dualstack.eu-west-1.amazonaws.com",
        "s3-control.s3.amazonaws.com",
        "s3-control.eu-west-1.s3.amazonaws.com",
        "s3-control.s3-eu-west-1.amazonaws.com",
        "s3-control.s3-external-1.amazonaws.com",
        "s3-control.s3-accelerate.amazonaws.com",
        "s3express-control.s3.eu-west-1.amazonaws.com",
        "s3-outposts.s3.eu-west-1.amazonaws.com",
        "s3-control--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com",
        "s3-control-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
        "control-123456789012.op-1.s3-outposts.eu-west-1.amazonaws.com",
        "xs3-control.eu-west-1.amazonaws.com",
        "s3-controls.eu-west-1.amazonaws.com",
        "bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com",
        "control.bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com",
        "s3-control.bucket.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com",
        "control-1.accesspoint.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com",
        "mycontrol.vpce-1a2b-3c4d.s3.us-east-1.vpce.amazonaws.com",
        "control.s3.us-east-1.vpce.amazonaws.com",
        "control.vpce-1a2b-3c4d.s3.us-east-1.amazonaws.com",
        "point.vpce-1a2b-3c4d.s3-outposts.us-east-1.vpce.amazonaws.com",
        "s3-control.eu-west-1.amazonaws.com.evil.example",
        "s3-control.eu-west-1.example.com",
        "s3-control.example.com",
        "s3-control.eu-west-1.amazonaws.com..",
        "[::1]:8080",
    ] {
        assert!(!is_s3_control(authority.as_bytes()), "{authority}");
    }
    assert!(!is_s3_control(&[b'a'; 4096]));
    assert!(!is_s3_control(b"\xff.s3-control.eu-west-1.amazonaws.com\xff"));
}

#[test]
fn global_services() {
    check(
        "
        iam.amazonaws.com                   iam            us-east-1
        iam.global.api.aws                  iam            us-east-1
        iam.us-gov.amazonaws.com            iam            us-gov-west-1
        iam.cn-north-1.amazonaws.com.cn     iam            cn-north-1
        iam.global.api.amazonwebservices.com.cn iam        cn-north-1
        route53.amazonaws.com               route53        us-east-1
        route53.amazonaws.com.cn            route53        cn-northwest-1
        route53.c2s.ic.gov                  route53        us-iso-east-1
        sts.amazonaws.com                   sts            us-east-1
        cloudfront.amazonaws.com            cloudfront     us-east-1
        globalaccelerator.us-west-2.amazonaws.com globalaccelerator us-west-2
        ",
    );
}

#[test]
fn endpoints_of_all_regions_ask_for_sigv4a() {
    for host in ["m1.mrap.accesspoint.s3-global.amazonaws.com", "abc.endpoint.events.amazonaws.com"] {
        assert!(infer(host).is_some_and(|endpoint| endpoint.requires_sigv4a()), "{host}");
    }
    assert!(infer("s3.eu-west-1.amazonaws.com").is_some_and(|endpoint| !endpoint.requires_sigv4a()));
}

#[test]
fn vpc_endpoints() {
    check(
        "
        vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com                  sqs          eu-west-1
        vpce-0a1b-2c3d-eu-west-1a.kms-fips.eu-west-1.vpce.amazonaws.com  kms          eu-west-1
        vpce-0a1b-2c3d.api.ecr.eu-west-1.vpce.amazonaws.com              ecr          eu-west-1
        vpce-0a1b-2c3d.execute-api.eu-west-1.vpce.amazonaws.com          execute-api  eu-west-1
        bucket.vpce-0a1b-2c3d.s3.eu-west-1.vpce.amazonaws.com            s3           eu-west-1
        my.bucket.vpce-0a1b-2c3d.s3.eu-west-1.vpce.amazonaws.com         s3           eu-west-1
        p-123456789012.accesspoint.vpce-0a1b-2c3d.s3.eu-west-1.vpce.amazonaws.com  s3 eu-west-1
        123456789012.control.vpce-0a1b-2c3d.s3.eu-west-1.vpce.amazonaws.com        s3 eu-west-1
        vpce-0a1b-2c3d.sqs.cn-north-1.vpce.amazonaws.com.cn              sqs          cn-north-1
        vpce-0a1b-2c3d.vpce-svc-4e5f.eu-west-1.vpce.amazonaws.com        -
        vpce-0a1b-2c3d.dkr.ecr.eu-west-1.vpce.amazonaws.com              -
        ",
    );
}

#[test]
fn hosts_that_tell_nothing() {
    check(
        "
        localhost                                          -
        10.0.0.1                                           -
        api.example.com                                    -
        amazonaws.com                                      -
        eu-west-1.amazonaws.com                            -
        sqs.eu-west-1.amazonaws.com.evil.example           -
        sqs.eu-west-1.evilamazonaws.com                    -
        sqs.eu-west-1.amazonaws.com.                       -
        .sqs.eu-west-1.amazonaws.com                       -
        sqs..eu-west-1.amazonaws.com                       -
        SQS.eu-west-1.amazonaws.com                        -
        sqs.eu-west-1.amazonaws.com:443                    -
        a.sqs.eu-west-1.amazonaws.com                      -
        unknown.amazonaws.com                              -
        app-1234.eu-west-1.elb.amazonaws.com               -
        ec2-1-2-3-4.eu-west-1.compute.amazonaws.com        -
        db.abc.eu-west-1.rds.amazonaws.com                 -
        123456789012.dkr.ecr.eu-west-1.amazonaws.com       -
        email-smtp.eu-west-1.amazonaws.com                 -
        abc.credentials.iot.eu-west-1.amazonaws.com        -
        git-codecommit.eu-west-1.amazonaws.com             -
        git-codecommit-fips.us-east-1.amazonaws.com        -
        git-codecommit.eu-west-1.vpce.amazonaws.com        -
        vpce-0a1b-2c3d.git-codecommit.eu-west-1.vpce.amazonaws.com -
        abc.transfer-webapp.eu-west-1.on.aws               -
        anything.eu-west-1.on.aws                          -
        ",
    );
    assert_eq!(infer(""), None);
    assert_eq!(infer("bücket.s3.eu-west-1.amazonaws.com"), None);
}

#[test]
fn tables_that_are_searched_are_sorted() {
    for table in [NAMES, FAMILIES, AFTER_REGION, GLOBAL, MULTI_REGION] {
        assert!(table.is_sorted_by(|(a, _), (b, _)| a < b), "{table:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(host in ".*") {
        let _ = infer(&host);
        let _ = is_s3_control(host.as_bytes());
    }

    #[test]
    fn what_is_inferred_is_fit_for_a_credential_scope(
        labels in "([a-z0-9_.-]{0,12}\\.){0,3}",
        name in "(s3|sqs|es|queue|iot|vpce-1\\.[a-z_.-]{0,6}|[a-zA-Z0-9_.*-]{0,8})",
        region in "(\\.?[a-z]{0,5}(-[a-z]{0,4}){0,3}-[0-9]{0,3})?(\\.global|\\.us-gov|\\.es|\\.vpce)?",
        suffix in prop::sample::select(SUFFIXES.iter().map(|suffix| suffix.name).collect::<Vec<_>>()),
    ) {
        if let Some(Endpoint { signing_name, region }) = infer(&format!("{labels}{name}{region}.{suffix}")) {
            let fit = |part: &str| {
                !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            prop_assert!(fit(signing_name), "{signing_name}");
            prop_assert!(fit(region) || region == ALL_REGIONS, "{region}");
        }
    }
}
